"""Use the answer: predictions for new images, and what is written of them."""
