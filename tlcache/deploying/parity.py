"""Does a bundle answer as the head does that went into it? On cached embeddings, and on images through all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from exporters.classify import head_alone
from tlcache.backbones.engines import open_session
from tlcache.backbones.network import Network
from tlcache.errors import ModelError
from tlcache.heads.answering import ANSWERS
from tlcache.heads.fitted import FittedHead
from tlcache.heads.rows import Array, blocks
from tlcache.heads.table import find_head

__all__ = ["Parity", "answers", "check_head", "check_images", "made_images", "made_rows", "run"]

_BLOCK = 128  # rows at a time: nearest neighbours take a number for each neighbour and class
_ROUNDING = 5e-7  # of an embedding's numbers, relative
_JUMPS = 0.01  # share of rows that may lie where rounding decides


@dataclass(frozen=True)
class Parity:
    """How far a bundle's probabilities are from the head's own.

    Parameters
    ----------
    n, what
        How many were compared, and of what they are: "cached embeddings".
    worst
        The largest difference, save those `at_a_jump`; of numbers in their units.
    at_a_jump
        Rows whose probabilities change as much when their embedding is rounded: a neighbour takes another's place, or a
        number passes a threshold of a tree.
    of
        What was compared: `probabilities` or `numbers`.
    """

    n: int
    what: str
    worst: float
    at_a_jump: int
    of: str = "probabilities"

    def __str__(self) -> str:
        jumps = f", save {self.at_a_jump} where rounding alone changes it as much" if self.at_a_jump else ""
        return f"Its {self.of} are those of the head within {self.worst:.0e}{jumps} ({self.n:,} {self.what})."


def check_head(head: FittedHead, rows: Array, what: str) -> Parity:
    """Compare a head in ONNX Runtime with the head itself, on embeddings (n, dim) which are `what`.

    Raises
    ------
    ModelError
        They differ by more than rounding: by more than the `tolerance` of the head's row.
    """
    session = open_session(head_alone(head))
    parts = [session.run([_main(session)], {"embedding": rows[some]})[0] for some in blocks(len(rows), _BLOCK)]
    return _compared(head, rows, np.concatenate(parts), what)


def check_images(bundle: bytes, network: Network, head: FittedHead, images: NDArray[np.uint8], what: str) -> Parity:
    """Compare a bundle with the network and head it was made of, on images (n, 3, H, W), one and then several at once.

    Raises
    ------
    ModelError
        As of `check_head`.
    """
    return _compared(head, network.embed(images), answers(bundle, images), what)


def answers(bundle: bytes, images: NDArray[np.uint8]) -> Array:
    """Return the probabilities, or numbers, that a bundle gives for images, one alone and then the others (n, C)."""
    session = open_session(bundle)
    return np.concatenate([run(session, images[some], [_main(session)])[0] for some in (slice(1), slice(1, None))])


def _main(session: onnxruntime.InferenceSession) -> str:
    """Return the name of what it answers."""
    name: str = next(each.name for each in session.get_outputs() if each.name in ANSWERS)
    return name


def run(
    session: onnxruntime.InferenceSession, images: NDArray[np.uint8], outputs: Sequence[str]
) -> list[NDArray[np.float32]]:
    """Return some outputs of a bundle for images, as many at a time as it takes."""
    fixed = session.get_inputs()[0].shape[0]
    size, parts = fixed if isinstance(fixed, int) else max(1, len(images)), []
    for some in blocks(len(images), size):
        batch = np.zeros((size, *images.shape[1:]), np.uint8)
        batch[: len(images[some])] = images[some]
        parts.append([each[: len(images[some])] for each in session.run(list(outputs), {"image": batch})])
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def made_rows(head: FittedHead, n: int = 256) -> Array:
    """Return embeddings as the head was fitted on, as far as their means and deviations tell."""
    middle, scale = head.scaler.middle, np.where(np.isinf(head.scaler.scale), 0, head.scaler.scale)
    rows: Array = np.random.default_rng(0).normal(middle, scale, (n, len(middle))).astype(np.float32)
    return rows


def made_images(size: tuple[int, int], n: int = 4) -> NDArray[np.uint8]:
    """Return images of noise, uint8 (n, 3, H, W)."""
    return np.random.default_rng(0).integers(0, 256, (n, 3, *size), dtype=np.uint8)


def _compared(head: FittedHead, rows: Array, found: Array, what: str) -> Parity:
    expected, tolerance = head.predict_proba(rows), find_head(head.name).tolerance
    numbers = head.answering if head.answering and head.answering.are_numbers else None
    if numbers:  # whose scale is their own, and which float32 rounds
        tolerance = tolerance * numbers.spread + float(np.spacing(np.abs(expected).max()))
    apart = np.abs(found - expected).max(axis=1)
    jumps = ~(apart <= tolerance)
    jumps[jumps] = _at_a_jump(head, rows[jumps], expected[jumps], tolerance)
    worst = float(apart[~jumps].max(initial=0))
    if not worst <= tolerance or jumps.sum() > 1 + _JUMPS * len(rows):
        raise ModelError(
            f"The exported {head.name} head is not the same: for {int((apart > tolerance).sum()):,} of {len(rows):,} "
            f"{what} an answer differs from the head's own by up to {apart.max():.1e}; at most {tolerance:.0e} is "
            "accepted. Nothing was written. Report this with the versions of onnx and onnxruntime."
        )
    return Parity(len(rows), what, worst, int(jumps.sum()), "numbers" if numbers else "probabilities")


def _at_a_jump(head: FittedHead, rows: Array, expected: Array, tolerance: float) -> NDArray[np.bool_]:
    """Return where the head's own answers change by more than `tolerance` when embeddings are rounded otherwise."""
    moved, random = np.zeros(len(rows), bool), np.random.default_rng(0)
    for _ in range(8 if len(rows) else 0):
        rounded = rows * (1 + random.uniform(-_ROUNDING, _ROUNDING, rows.shape)).astype(np.float32)
        moved |= np.abs(head.predict_proba(rounded) - expected).max(axis=1) > tolerance
    return moved
