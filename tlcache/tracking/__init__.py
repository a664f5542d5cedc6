"""Recorded runs in trackers of others: MLflow, TensorBoard, Weights & Biases."""
