"""Pillow's pixels without copying them: the Arrow C data interface, of which an RGB image needs one pointer.

Source: https://arrow.apache.org/docs/format/CDataInterface.html. Pillow keeps RGB as four bytes to the pixel, which is
also what PyTorch's resizing works on; going through `numpy.asarray` packs and copies them twice.
"""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["view"]


class _ArrowArray(ctypes.Structure):
    pass


_ArrowArray._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]

_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = [ctypes.py_object, ctypes.c_char_p]


def view(image: Image.Image) -> NDArray[np.uint8]:
    """Return an RGB image as uint8 (H, W, 4), the fourth channel being padding, or as a copy (H, W, 3).

    It is a copy where Pillow keeps the image in several blocks of memory (above 16 MB), or has no Arrow interface
    (before version 11.2). The view keeps the memory alive; nobody else may change the image.
    """
    try:
        _, capsule = image.__arrow_c_array__()
    except (AttributeError, ValueError, MemoryError):
        return np.require(np.asarray(image), requirements="W")
    pixels = ctypes.cast(_pointer_of(capsule, b"arrow_array"), ctypes.POINTER(_ArrowArray)).contents
    channels = pixels.children[0].contents
    memory = (ctypes.c_uint8 * channels.length).from_address(channels.buffers[1])
    memory.capsule = capsule
    return np.frombuffer(memory, np.uint8).reshape(image.height, image.width, 4)
