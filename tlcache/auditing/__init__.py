"""Is a comparison on this split worth anything? Duplicates, leaks, label issues, and groups to split by."""
