"""Training runs: their records, and what they are called beside each other."""
