"""What is known of the machine: its fingerprint, its limits, its devices while they work."""
