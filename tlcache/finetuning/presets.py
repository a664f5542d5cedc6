"""How far images are changed while a network is trained on them: one frozen row each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """How far images are changed.

    Parameters
    ----------
    area
        Least and largest share of the stored square that a crop takes; None: the centre crop.
    rotation
        Largest angle in degrees.
    flips
        Probabilities of a horizontal and of a vertical flip.
    contrast, saturation
        Largest relative change.
    trivial
        One operation of TrivialAugment as well.
    """

    area: tuple[float, float] | None = None
    rotation: float = 0.0
    flips: tuple[float, float] = (0.0, 0.0)
    contrast: float = 0.0
    saturation: float = 0.0
    trivial: bool = False


PRESETS: Mapping[str, Preset] = {
    "none": Preset(),
    "light": Preset(area=(0.5, 1.0), flips=(0.5, 0.0)),
    "study": Preset(rotation=20.0, flips=(0.5, 0.5), contrast=0.2, saturation=0.2),
    "strong": Preset(area=(0.35, 1.0), flips=(0.5, 0.0), trivial=True),
}
