"""Timing tables: `make bench`."""
