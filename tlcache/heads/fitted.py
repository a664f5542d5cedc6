"""A fitted head with all that it needs to answer for new embeddings, and its file."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcache.errors import HeadError, first_line
from tlcache.files import whole
from tlcache.heads.answering import Answering, answering_of
from tlcache.heads.logits import Fitted, softmax
from tlcache.heads.rows import Array, Scaler, View
from tlcache.heads.table import HeadRow, find_head
from tlcache.heads.uncertainty import Uncertainty
from tlcache.keys import canonical_json, native

__all__ = ["FittedHead", "load_head", "load_to_ask"]

FORMAT = "tlcache-head"
FORMAT_VERSION = 2
_PROMISED = "uncertainty."


@dataclass(frozen=True)
class FittedHead:
    """A head fitted on the embeddings of one backbone.

    Parameters
    ----------
    name
        Row of `tlcache.heads.table.HEADS`.
    head
        The classifier, a `tlcache.heads.base.Head` or what answers as it does; its labels are indices into `classes`.
    scaler
        Applied to embeddings first.
    temperature
        Divides the logits (Guo et al., 2017), fitted on validation.
    classes
        Names of all classes of the dataset, seen in training or not.
    backbone, key
        Name and model key of the backbone whose embeddings it takes.
    uncertainty
        What it promises of new images; None where `--coverage` was not asked for.
    answering
        How its logits are read, where it was fitted on several labels, or numbers; None of classes.
    """

    name: str
    head: Fitted
    scaler: Scaler
    temperature: float
    classes: tuple[str, ...]
    backbone: str
    key: str
    uncertainty: Uncertainty | None = None
    answering: Answering | None = None

    def predict_proba(self, features: ArrayLike, key: str | None = None) -> NDArray[Any]:
        """Return calibrated probabilities, float32 (n, len(classes)); arguments and errors as of `logits`.

        Of numbers that were learned, it is these, float64 (n, 1).
        """
        return self.probabilities(self.logits(features, key))

    def logits(self, features: ArrayLike, key: str | None = None) -> Array:
        """Return the logits of the classes that the head has seen, float32 (n, len(head.classes_)).

        Parameters
        ----------
        features
            (n, dim) embeddings of n images, which may be 0; anything that numpy makes such a matrix of.
        key
            The model key of these embeddings, when known: checked against the head's own.

        Raises
        ------
        HeadError
            The embeddings are no matrix of numbers, of another width or key, or not finite.
        """
        rows = self._rows(features)
        if key is not None and key != self.key:
            raise HeadError(f"The {self.name} head was trained on features of key {self.key[:12]}; given {key[:12]}.")
        if not np.isfinite(rows).all():
            raise HeadError("The features hold NaN or infinity. Run: tlcache verify")
        if not len(rows):
            return np.empty((0, len(self.head.classes_)), np.float32)
        return self.head.logits(self.scaler.over(rows))

    def _rows(self, features: ArrayLike) -> Array:
        width = len(self.scaler.middle)
        wanted = f"The {self.name} head was trained on {self.backbone} with {width} features and takes (n, {width})"
        try:
            with np.errstate(over="ignore"):  # what is too large becomes infinity, and is refused as that
                rows = np.asarray(features, np.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise HeadError(f"{wanted} numbers; given {type(features).__name__}: {first_line(error)}") from None
        if rows.shape == (0,):
            return rows.reshape(0, width)
        if rows.shape == (width,):
            raise HeadError(f"{wanted}; given a single embedding ({width},). Put it in a list.")
        if rows.ndim != 2 or rows.shape[1] != width:
            raise HeadError(f"{wanted}; given {rows.shape}.")
        return rows

    def probabilities(self, logits: Array, temperature: float | None = None) -> NDArray[Any]:
        """Turn what `logits` returned into probabilities, float32 (n, len(classes)); classes never seen have 0.

        Another temperature than the head's own: 1 undoes the calibration.
        """
        if self.answering is not None:
            return self.answering.answers(logits, temperature or self.temperature)
        probabilities = np.zeros((len(logits), len(self.classes)), np.float32)
        probabilities[:, self.head.classes_] = softmax(logits / (temperature or self.temperature))
        return probabilities

    def predict(self, features: ArrayLike) -> NDArray[np.str_]:
        """Return the names of the most probable classes, (n,); of several labels `a;b`, of numbers these as texts."""
        if self.answering is not None:
            return np.array(self.answering.said(self.predict_proba(features)), np.str_)
        names: NDArray[np.str_] = np.array(self.classes)[self.predict_proba(features).argmax(axis=1)]
        return names

    def refitted(self, features: Array, labels: NDArray[np.int64]) -> FittedHead:
        """Return the same setting fitted on other rows: (n, dim) embeddings and their indices into `classes` (n,).

        The temperature stays as it is.
        """
        row = find_head(self.name)
        scaler = Scaler.of(View(features, widths=self.scaler.widths), row.scaled)
        head = row.type()(**self.head.get_params()).fit(scaler.over(features), labels)
        return replace(self, head=head, scaler=scaler)

    def with_class(self, name: str, embeddings: ArrayLike) -> FittedHead:
        """Return the head with one more class, without a refit; its temperature stays, its uncertainty is not known.

        Parameters
        ----------
        name
            Of the class: a new one, or one that was never seen.
        embeddings
            (n, dim), of images of it.

        Raises
        ------
        HeadError
            The head has the class, or cannot be given one; no embeddings.
        """
        rows, seen = self._rows(embeddings), {self.classes[label] for label in self.head.classes_}
        if not hasattr(self.head, "with_class"):
            raise HeadError(
                f"A class cannot be added to the {self.name} head without a refit. Fit ncm, to which it can, or "
                "fit again with images of the class in the dataset."
            )
        if name in seen:
            raise HeadError(f"The {self.name} head already has the class '{name}'. Give another name.")
        if not len(rows):
            raise HeadError(f"The class '{name}' was given no embeddings. Give those of one image or more.")
        classes = self.classes if name in self.classes else (*self.classes, name)
        head = self.head.with_class(classes.index(name), self.scaler(rows))
        return replace(self, head=head, classes=classes, uncertainty=None)

    def save(self, path: Path | str) -> None:
        """Write a safetensors file: arrays and JSON, no code."""
        from safetensors.numpy import save_file

        state = self.head.state()
        arrays = {f"head.{name}": array for name, array in state.items()}
        arrays |= {"scaler.middle": self.scaler.middle, "scaler.scale": self.scaler.scale}
        if self.uncertainty is not None:
            arrays |= {f"{_PROMISED}{name}": array for name, array in self.uncertainty.arrays().items()}
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        fields = {
            "name": self.name,
            "params": self.head.get_params(),
            "temperature": self.temperature,
            "classes": self.classes,
            "backbone": self.backbone,
            "key": self.key,
            "crc32": _checksum(arrays),
            **({"widths": self.scaler.widths} if self.scaler.widths else {}),
            **({"answering": self.answering.as_fields()} if self.answering else {}),
        }
        metadata = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "fields": canonical_json(fields)}
        with whole(Path(path)) as unfinished:
            save_file(arrays, unfinished, metadata)


def load_head(path: str | Path) -> FittedHead:
    """Load a head that `fit_heads` saved, by its file or by the record of its run, which lies beside it.

    Raises
    ------
    HeadError
        Missing, damaged, not a head, or of a newer format.

    Examples
    --------
    >>> run = fit_heads([feature_file], heads=["ridge"], runs=folder)[0]
    >>> head = load_head(run.head_path)
    >>> with open_features(feature_file) as features:
    ...     head.predict(features.split("test").features).shape
    (6,)
    """
    return _load(path, lambda row, *saved: row.type().restore(*saved))


def load_to_ask(path: str | Path) -> FittedHead:
    """Load a head as `load_head` does, without what fits it (scikit-learn, a second): its `head` only answers."""
    return _load(path, HeadRow.restore)


def _load(
    path: str | Path, restore: Callable[[HeadRow, dict[str, Any], dict[str, NDArray[Any]], int], Fitted]
) -> FittedHead:
    from safetensors import SafetensorError, safe_open

    path = Path(path).with_suffix(".safetensors") if Path(path).suffix == ".json" else path
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (OSError, SafetensorError) as error:
        raise HeadError(f"Cannot read the head '{path}': {error}.") from None
    if metadata.get("format") != FORMAT or metadata.get("format_version") != str(FORMAT_VERSION):
        raise HeadError(
            f"'{path}' is not a head of this tlcache: format {metadata.get('format')} "
            f"{metadata.get('format_version')}, expected {FORMAT} {FORMAT_VERSION}."
        )
    fields: dict[str, Any] = native(json.loads(metadata["fields"]))
    if fields["crc32"] != _checksum(arrays):
        raise HeadError(f"The head '{path}' is damaged: its checksum does not match. Fit it again.")
    state = {name.removeprefix("head."): array for name, array in arrays.items() if name.startswith("head.")}
    promised = {name[len(_PROMISED) :]: array for name, array in arrays.items() if name.startswith(_PROMISED)}
    scaler = Scaler(arrays["scaler.middle"], arrays["scaler.scale"], tuple(fields.get("widths", ())))
    return FittedHead(
        fields["name"],
        restore(find_head(fields["name"]), fields["params"], state, len(scaler.middle)),
        scaler,
        fields["temperature"],
        tuple(fields["classes"]),
        fields["backbone"],
        fields["key"],
        Uncertainty.of_tables(promised) if promised else None,
        answering_of(fields),
    )


def _checksum(arrays: Mapping[str, NDArray[Any]]) -> int:
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(np.ascontiguousarray(arrays[name]).data, zlib.crc32(name.encode(), total))
    return total
