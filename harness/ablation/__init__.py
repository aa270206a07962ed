"""Ablations: from the file through plan, trainings side by side and rows to the command."""
