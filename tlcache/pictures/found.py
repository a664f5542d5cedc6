"""What was found to be similar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tlcache.datasets.source import Images

__all__ = ["Asked", "Neighbour", "Similar"]


class Neighbour(NamedTuple):
    """An image of the dataset: its path there, its split and label, and how similar it is; `same`: equal bytes."""

    path: str
    split: str
    label: str
    cosine: float
    same: bool


class Asked(NamedTuple):
    """An image that was asked for, where its bytes are, and the images most similar to it, the closest first."""

    path: str
    images: Images
    similar: tuple[Neighbour, ...]


@dataclass(frozen=True)
class Similar:
    """What is similar to some images.

    Parameters
    ----------
    dataset, backbone
        Where it was looked for, and what embedded all images.
    searched
        Among how many images: all that the dataset has.
    images
        Where the bytes of those are.
    asked
        What was found for each image; those that were given as the dataset's own come first.
    errors
        Path -> why an image cannot be used.
    """

    dataset: str
    backbone: str
    searched: int
    images: Images
    asked: tuple[Asked, ...]
    errors: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        found = [{"image": each.path, "similar": [near._asdict() for near in each.similar]} for each in self.asked]
        about = {"dataset": self.dataset, "backbone": self.backbone, "images": self.searched}
        return {**about, "asked": found, "errors": dict(self.errors)}
