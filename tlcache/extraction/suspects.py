"""Images that were being decoded when a process died: each is decoded alone, to find the guilty ones."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tlcache.datasets.source import Images
from tlcache.errors import ImageReadError
from tlcache.extraction.inflight import Decoding, decode_limit_s

__all__ = ["environment", "find_guilty"]


def find_guilty(suspects: Iterable[Decoding], images: Images, max_pixels: int) -> dict[str, tuple[str, str]]:
    """Decode each image alone: content hash -> code and message of those that kill or hang their decoder."""
    guilty = {}
    for suspect in suspects:
        with suppress(ImageReadError):
            data = images.read(suspect.path)
            if why := _decode_alone(data, suspect.at_least, max_pixels):
                guilty[hashlib.sha256(data).hexdigest()] = why
    return guilty


def _decode_alone(data: bytes, at_least: int, max_pixels: int) -> tuple[str, str] | None:
    """Decode an image in a process of its own; return how that ends, None where it does as it should."""
    command = [sys.executable, "-P", "-m", "tlcache.images", str(at_least), str(max_pixels)]
    limit_s = decode_limit_s()
    try:
        done = subprocess.run(command, env=environment(), input=data, capture_output=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return "hangs", f"its decoder was not done after {limit_s:g} s"
    if done.returncode < 0:
        return "crashes", f"its decoder dies of {signal.Signals(-done.returncode).name}"
    return None


def environment() -> dict[str, str]:
    """Let the worker import what this process can import."""
    paths = [path or str(Path.cwd()) for path in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
