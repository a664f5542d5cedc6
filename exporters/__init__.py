"""From networks to ONNX files that take uint8 images and give embeddings.

`exporters.export` exports the backbones of the table, `exporters.adapt` wraps somebody else's ONNX file.
"""

__all__ = ["EXPORT_VERSION"]

EXPORT_VERSION = 1  # part of the cache key: raise it when the same weights would give other numbers
