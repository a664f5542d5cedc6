"""Runs judged: metrics, intervals, paired tests, comparisons and verdicts."""
