"""What is cached, whether it is what was written, and what of it is of no use any more."""
