"""Commands of the command line, a file for each heading of its help."""
