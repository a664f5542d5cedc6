"""How close is a near-duplicate? As close as an altered copy of an image is, and closer than impostors ever are.

An impostor is an image of another class: whatever it is, it is no copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.auditing.copies import COPIES, compare_copies
from tlcache.auditing.neighbours import Array, Impostors, Space
from tlcache.auditing.pixels import pixels_of_pairs
from tlcache.cache.feature_file import FeatureFile
from tlcache.errors import CacheError, TlcacheError
from tlcache.images import BadImageError
from tlcache.keys import slug
from tlcache.progress import warn
from tlcache.records import Form, renamed
from tlcache.text import counted

__all__ = ["Calibration", "calibrate", "calibration_path", "read_calibration", "impostor_bound", "write_calibration"]

COPY_SHARE = 0.98  # of altered copies that are close enough
IMPOSTOR_SHARE = 0.001  # of images that have an impostor above the bound
_FEW = 100


@dataclass(frozen=True)
class Calibration:
    """Where the line is drawn, and why.

    Parameters
    ----------
    threshold
        Cosine above which two images may be near-duplicates: their pixels decide.
    alike
        Cosine above which two images are alike, whatever their pixels: they share a group.
    impostors
        The cosine that one image in a thousand reaches with some image of another class.
    pixels, pixel_impostors
        Agreement of pixels that copies reach, and that one image in a thousand reaches with its closest image of
        another class; None where no copies could be made.
    copies
        Kind of altered copy -> share of them that are called near-duplicates; empty where none could be made.
    margin
        How far copies stand out: 0 is where the closest impostor of the median image is, 1 where `impostors` is. None
        where no copies could be made.
    images
        How many images copies were made of.
    note
        What a user should know of it; empty when all went well.
    """

    threshold: float
    alike: float
    impostors: float
    pixels: float | None
    pixel_impostors: float | None
    copies: Mapping[str, float]
    margin: float | None
    images: int
    note: str

    @property
    def judges(self) -> bool:
        """Whether near-duplicates can be told from others: not where most copies of some kind would be missed.

        Mirrored ones may be: a network may well tell left from right.
        """
        return min((share for kind, share in self.copies.items() if kind != "flipped"), default=1.0) >= 0.5

    def near(self, cosines: Array, pixels: Array) -> NDArray[np.bool_]:
        """Return which pairs are near-duplicates.

        Both cosine and pixels must be as close as those of copies, and one of them closer than impostors ever are.

        Parameters
        ----------
        cosines, pixels
            float32 of one shape; NaN in `pixels` where they are not known: cosines above `alike` then decide.
        """
        if self.pixels is None or self.pixel_impostors is None:
            return cosines > self.alike
        certain = (cosines > self.impostors) | (pixels > self.pixel_impostors)
        seen = (cosines > self.threshold) & (pixels > self.pixels) & certain
        return np.where(np.isnan(pixels), cosines > self.alike, seen)


of_version_1 = renamed({"strangers": "impostors", "pixel_strangers": "pixel_impostors"})
CALIBRATIONS: Form[Calibration] = Form(
    "tlcache-calibration", 2, "a calibration", Calibration, earlier={1: of_version_1}
)


def calibrate(
    file: FeatureFile, space: Space, embeddings: Array, impostors: Impostors, certain: bool = True
) -> Calibration:
    """Find out how close near-duplicates are in one feature file.

    Of a sample of its images, altered copies are made, embedded by the same network, and compared with the original:
    near-duplicates have at least the cosine and the agreement of pixels that 98 % of every kind of copy exceed, though
    never a cosine at which half of the images have an impostor. Images are alike above the cosine that 98 % of all
    copies exceed, but never so low that more than one image in a thousand would be like one of another class. Where
    the images or the network are gone, both lie half-way between that bound and 1.

    Parameters
    ----------
    file
        The feature file.
    space, embeddings
        Where cosines are taken, and the file's rows there: float32 (n, k).
    impostors
        As `tlcache.auditing.neighbours.nearest_impostors` returns.
    certain
        Whether labels say that these are no copies. If not, those that look like copies by both are left out.
    """
    bound = impostor_bound(impostors.cosines)
    try:
        cosines, pixels = compare_copies(file, space, embeddings)
    except (TlcacheError, OSError, BadImageError) as error:
        warn(f"No copies of images could be made: {error}")
        note = "No copies could be made to compare with; the threshold is a guess from the labels alone."
        return Calibration((1 + bound) / 2, (1 + bound) / 2, bound, None, None, {}, None, 0, note)
    low, low_pixels = (float(np.quantile(each, 1 - COPY_SHARE, axis=0).min()) for each in (cosines, pixels))
    looks = pixels_of_pairs(file, impostors.rows, impostors.nearest)
    if not certain:
        apart = ~((impostors.cosines > low) & (looks > low_pixels))
        if 2 * apart.sum() > len(apart):
            impostors, looks = impostors.only(apart), looks[apart]
            bound = impostor_bound(impostors.cosines)
    usual = float(np.median(impostors.cosines))
    alike = max(bound, float(np.quantile(cosines, 1 - COPY_SHARE)))
    made = Calibration(
        threshold=min(alike, max(usual, min(bound, low))) if bound > -1 else alike,
        alike=alike,
        impostors=bound,
        pixels=low_pixels,
        pixel_impostors=_pixel_bound(looks, impostors),
        copies={},
        margin=(low - usual) / max(bound - usual, 1e-6),
        images=len(cosines),
        note="",
    )
    found = dict(zip(COPIES, made.near(cosines, pixels).mean(axis=0).tolist(), strict=True))
    return Calibration(**{**vars(made), "copies": found, "note": _note(found, len(file))})


def impostor_bound(impostors: Array) -> float:
    """Return the cosine that one image in a thousand exceeds with its closest image of another class.

    Largest values follow Gumbel's law (Fisher and Tippett, 1928), which is fitted through the median and the 95th
    percentile, so that a duplicate under another label for one image in fifty hardly moves it.
    """
    return min(0.999, _one_in_a_thousand(impostors))


def _pixel_bound(pixels: Array, impostors: Impostors) -> float:
    """Return the same for the pixels of those closest images; correlations are fitted on Fisher's scale, arctanh."""
    known = pixels[~np.isnan(pixels) & (impostors.cosines > -1)].astype(np.float64)
    return float(np.tanh(_one_in_a_thousand(np.arctanh(np.clip(known, -0.9999, 0.9999))))) if len(known) else -1.0


def _one_in_a_thousand(largest: NDArray[np.floating]) -> float:
    middle, high = np.quantile(largest.astype(np.float64), [0.5, 0.95])
    at = -np.log(-np.log(np.array([0.5, 0.95, 1 - IMPOSTOR_SHARE])))
    return float(middle + (high - middle) * (at[2] - at[0]) / (at[1] - at[0]))


def _note(found: Mapping[str, float], images: int) -> str:
    notes = [f"With {counted(images, 'image')} the threshold is rough."] if images < _FEW else []
    missed = [f"{1 - share:.0%} of {kind} copies" for kind, share in found.items() if share < 0.9]
    if missed:
        notes.append(f"At this threshold {', '.join(missed)} would be missed: images of other classes are as close.")
    return " ".join(notes)


def calibration_path(runs: Path, attrs: Mapping[str, Any]) -> Path:
    """Return where the calibration of a feature file is kept: the same rows by the same network give the same one."""
    ending = f"-{attrs['key'][:12]}-{attrs['dataset_digest'][:8]}.json"
    return runs / slug(str(attrs["dataset"])) / "audit" / "calibration" / slug(str(attrs["backbone"]), ending)


def read_calibration(path: Path) -> Calibration | None:
    """Return a calibration that was kept; None where there is none of this form."""
    with suppress(CacheError):
        return CALIBRATIONS.read(path)
    return None


def write_calibration(path: Path, found: Calibration) -> None:
    """Keep a calibration, if it is one on copies."""
    if found.images:
        CALIBRATIONS.write(path, found)
