"""The frozen strategy: heads on cached embeddings, their settings chosen without the test split."""
