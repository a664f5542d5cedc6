"""The state of a training on disk: whole or not at all, and never more than the last two."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from tlcache.files import write_whole

__all__ = ["Checkpoints"]

_KEPT = 2


class Checkpoints:
    """The checkpoints of one training.

    A file's name carries the number of its epoch and the hash of its bytes, so a damaged one is not taken for whole.

    Parameters
    ----------
    folder
        Where they lie; made when the first is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, number: int, state: dict[str, Any]) -> None:
        """Write `state` (tensors, numbers, strings, and lists and dictionaries of them) as the newest checkpoint."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        name = f"{number:06d}-{hashlib.sha256(buffer.getbuffer()).hexdigest()[:12]}.pt"
        write_whole(self.folder / name, buffer.getbuffer())
        for old in self._files()[_KEPT:]:
            old.unlink()

    def latest(self) -> dict[str, Any] | None:
        """Return the newest state that is whole, or None; no code in a file is run."""
        for path in self._files():
            data = path.read_bytes()
            if path.stem.rpartition("-")[2] == hashlib.sha256(data).hexdigest()[:12]:
                state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
                return state
        return None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.pt"), reverse=True)
