"""What runs are worth on images that are made worse."""
