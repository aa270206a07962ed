"""The speed grid: points, plan, sittings, gate and clock, their rows and what those reached."""
