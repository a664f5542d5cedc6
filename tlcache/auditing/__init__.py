"""Is a comparison on this split worth anything? Duplicates, leaks, doubtful labels, and groups to split by."""
