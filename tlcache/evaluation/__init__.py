"""What runs are worth: metrics, intervals, paired tests, comparisons and verdicts."""
