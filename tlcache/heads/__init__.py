"""Classifiers on embeddings, with scikit-learn's interface: `table.py` lists them."""
