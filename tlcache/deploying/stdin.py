"""Paths of images on standard input, for whoever predicts; nothing beyond Python's own library is imported."""

from __future__ import annotations

import os
import sys

__all__ = ["standard_input"]


def standard_input() -> list[str]:
    """Return the paths on standard input: one to a line, or with zero bytes between them, as of `find -print0`."""
    data = sys.stdin.buffer.read()
    if b"\0" in data:
        return [os.fsdecode(path) for path in data.split(b"\0") if path.strip()]
    return [os.fsdecode(path.rstrip(b"\r")) for path in data.split(b"\n") if path.strip()]
