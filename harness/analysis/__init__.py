"""What recorded trainings say: statistics of contrasts, verdicts, and the words for them."""
