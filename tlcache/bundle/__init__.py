"""A model that was exported, used with ONNX Runtime, NumPy and Pillow alone: no other package is imported here.

`tlcache export` makes it of a run: one ONNX file, from images to answers. `python -m tlcache.bundle` uses it.
"""

from tlcache.bundle.model import Bundle, load_model

__all__ = ["Bundle", "load_model"]
