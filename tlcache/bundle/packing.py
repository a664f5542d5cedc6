"""A model and what runs it as one file, which Python starts."""

from __future__ import annotations

import io
import pkgutil
import sys
import zipfile
from pathlib import Path

from tlcache.files import write_whole

__all__ = ["pack", "packed"]

_PACKAGE, _MODEL = "tlcache", "model.onnx"


def pack(model: bytes, out: Path) -> None:
    """Write a file with a model that is started like `tlcache.bundle`; ONNX Runtime, NumPy and Pillow do for it.

    It has the modules of tlcache that this process has imported: who calls this has opened the model. Its name may end
    as it likes: Python looks at what is in it.
    """
    modules = {name: each for name, each in sys.modules.items() if name.split(".")[0] == _PACKAGE}
    buffer = io.BytesIO(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(buffer, "a") as file:
        for name, module in sorted(modules.items()):
            place = name.replace(".", "/") + ("/__init__" if hasattr(module, "__path__") else "")
            file.writestr(zipfile.ZipInfo(f"{place}.py"), _source(name, Path(str(module.__file__)).name))
        file.writestr(zipfile.ZipInfo("__main__.py"), _source(f"{_PACKAGE}.bundle", "__main__.py"))
        file.writestr(zipfile.ZipInfo(f"{_PACKAGE}/{_MODEL}"), model)
    write_whole(out, buffer.getvalue())


def packed() -> bytes | None:
    """Return the model that lies in the file that was started; None where there is none."""
    try:
        return pkgutil.get_data(_PACKAGE, _MODEL)
    except OSError:
        return None


def _source(module: str, file: str) -> bytes:
    return pkgutil.get_data(module, file) or b""
