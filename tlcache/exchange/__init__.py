"""Embeddings out and in: feature files as files of other kinds, and those of others as feature files."""
