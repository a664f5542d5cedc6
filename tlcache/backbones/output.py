"""What leaves a layer of a network: its shape, and the poolings that make an embedding of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Output"]


@dataclass(frozen=True)
class Output:
    """What leaves a layer for one image.

    Parameters
    ----------
    name
        As `--layers` takes it.
    shape
        (dim,) of a vector, (tokens, channels), or (channels, height, width) of a map; 0 where it is not known.
    prefix
        How many tokens beside those stand for no place: class token and registers.
    pools
        Pooling -> length of the embedding, the default first, 0 where it is not known; empty where none is needed.
    """

    name: str
    shape: tuple[int, ...]
    prefix: int = 0
    pools: Mapping[str, int] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What it is, with its sizes: "map 512x7x7", "tokens 196+1 x 384", "vector 512"."""
        sizes = [str(size or "?") for size in self.shape]
        if len(sizes) == 1:
            return f"vector {sizes[0]}"
        if len(sizes) == 2:
            return f"tokens {sizes[0]}{f'+{self.prefix}' if self.prefix else ''} x {sizes[1]}"
        return f"map {'x'.join(sizes)}"

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        return {**vars(self), "shape": list(self.shape), "pools": dict(self.pools), "kind": self.kind}
