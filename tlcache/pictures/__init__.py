"""What is cached, to be looked at: similar images, and where they lie."""
