"""ONNX files that were made here, kept in the cache folder until it is emptied."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from tlcache.files import cache_folder, write_whole

__all__ = ["kept"]


def kept(stem: str, make: Callable[[], bytes]) -> bytes:
    """Return the file of this name, made if it is not there; file names carry the hash of their content, too."""
    folder = cache_folder() / "onnx"
    for path in folder.glob(f"{stem}-*.onnx"):
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest()[:12] == path.stem.removeprefix(f"{stem}-"):
            return data
        path.unlink(missing_ok=True)
    data = make()
    write_whole(folder / f"{stem}-{hashlib.sha256(data).hexdigest()[:12]}.onnx", data)
    return data
