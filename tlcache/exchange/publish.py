"""The steps of an adoption: read, match with images, hash, check, publish."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.backbones.model import KEY_VERSION
from tlcache.backbones.sources import GIVEN
from tlcache.cache.feature_file import STAGES, FeatureFile, stage_seconds
from tlcache.cache.index import Index
from tlcache.cache.plan import Plan
from tlcache.cache.publish import publish
from tlcache.datasets.dataset import Dataset
from tlcache.datasets.layout import Layout
from tlcache.errors import OptionError
from tlcache.exchange.arrays import GivenRows
from tlcache.exchange.images import Matched, match
from tlcache.exchange.readers import Found, read
from tlcache.extraction.job import EmbedResult
from tlcache.extraction.rows import Rows, assemble
from tlcache.extraction.steps import check_name
from tlcache.files import check_room
from tlcache.heads.rows import blocks
from tlcache.images import REVISION, RULES_VERSION
from tlcache.keys import hash_json, slug
from tlcache.machine import uncollected
from tlcache.progress import say
from tlcache.records import as_json

__all__ = ["Adoption", "publish_given"]

_HASH = 64  # digits


@dataclass(frozen=True)
class Adoption:
    """A feature file of embeddings that were made elsewhere.

    Parameters
    ----------
    path
        The file.
    dataset, backbone
        What the images and the network are called.
    rows, dim
        Embeddings and their length.
    overview
        What the dataset was understood to be, in a line.
    warnings
        What a user should know, a sentence each.
    """

    path: Path
    dataset: str
    backbone: str
    rows: int
    dim: int
    overview: str
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return dict(as_json(self))


def publish_given(
    path: Path, network: str | None, data: str | Path | None, key: str | None, folder: Path, seed: int, layout: Layout
) -> Adoption:
    """Do what `tlcache.exchange.adopt.adopt` says."""
    folder.mkdir(parents=True, exist_ok=True)
    with uncollected(), tempfile.TemporaryDirectory(prefix=".adopted-", dir=folder) as scratch:
        found = read(path, key, Path(scratch) / "rows.npy")
        name = network or str(found.said.get("backbone", ""))
        if not name:
            raise OptionError(f"'{path}' does not say what made its embeddings. Give a name: --name NAME")
        matched = match(path, found, data, folder, layout)
        matched.dataset.check_splits()
        return _published(path, found, matched, _Network(name, found.values.shape[1]), folder, seed, layout)


@dataclass(frozen=True)
class _Network:
    """What made the embeddings: nothing is known of it but its name and their length."""

    name: str
    dim: int

    @property
    def identity(self) -> dict[str, Any]:
        made = {"version": KEY_VERSION, "backbone": {"given": self.name, "dim": self.dim}, "output": "", "pool": None}
        return {**made, "precision": "fp32", "dtype": "float32", "preprocess": {"rules": RULES_VERSION}}

    @property
    def key(self) -> str:
        return hash_json(self.identity)


def _published(
    path: Path, found: Found, matched: Matched, network: _Network, folder: Path, seed: int, layout: Layout
) -> Adoption:
    dataset, rows = matched.dataset, GivenRows(found.values, matched.name_of)
    hashes = _hashes(found, matched, rows)
    index = Index(network.key)
    by_row = np.full(rows.shape[0], b"", "S64")
    by_row[matched.rows] = [each.encode() for each in hashes]
    index.add(path, by_row, by_row != b"", _stored(found), network.dim, stage_seconds(), "given", REVISION)
    table = assemble(dataset, EmbedResult(hashes), index, seed)
    places = dict(zip(map(os.fsencode, dataset.paths), matched.rows, strict=True))
    table.columns["index"] = np.array([places[each] for each in table.columns["path"].tolist()], np.int64)
    target = folder / dataset.name / f"{slug(network.name)}-{network.key[:12]}.h5"
    target.parent.mkdir(exist_ok=True)
    check_name(target.parent, dataset, "Say with --data that they are of these images, or rename the file.")
    check_room(target.parent, 4 * network.dim * len(table))
    say(f"{dataset.name}: {table.overview}")
    publish(
        Plan(
            target, network.dim, table.columns, [rows], _attributes(path, found, dataset, table, network, seed, layout)
        )
    )
    with FeatureFile(target) as file:
        alike = ["All embeddings are equal, whatever the image. Is the network trained?"] if file.is_constant() else []
    warnings = (*found.notes, *matched.notes, *table.warnings, *alike)
    return Adoption(target, dataset.name, network.name, len(table), network.dim, str(table.overview), warnings)


def _hashes(found: Found, matched: Matched, rows: GivenRows) -> list[str]:
    """Return what tells the content of each image: a hash that is given, that of its bytes, or of its embedding."""
    given = found.columns.get("sha256", ())
    if given and all(len(each) == _HASH for each in given):
        return [given[row] for row in matched.rows]
    dataset = matched.dataset
    hashes = dataset.hashes() if dataset.images.exists() else [""] * len(dataset)
    for some in blocks(len(dataset)):
        embeddings = rows.features(np.array(matched.rows[some], np.int64))
        for number, row in enumerate(embeddings, some.start):
            hashes[number] = hashes[number] or hashlib.sha256(row.data).hexdigest()
    return hashes


def _stored(found: Found) -> NDArray[np.int32]:
    """Return width, height and frames of all images, 0, 0 and 1 where that is not said: int32 (n, 3)."""
    usual = {"width": 0, "height": 0, "frames": 1}
    stored = np.empty((found.values.shape[0], len(usual)), np.int32)
    for number, (name, value) in enumerate(usual.items()):
        stored[:, number] = np.array(found.columns[name]) if name in found.columns else value
    return stored


def _attributes(
    path: Path, found: Found, dataset: Dataset, table: Rows, network: _Network, seed: int, layout: Layout
) -> Mapping[str, Any]:
    place = {
        "data": dataset.data,
        "name": dataset.name,
        "model": f"{GIVEN}{network.name}",
        "embeddings": str(path.absolute()),
    }
    drawn = {"drawn": str(found.said["drawn"])} if "drawn" in found.said else {}
    return table.attributes(
        dataset,
        network.key,
        network.identity,
        {**place, "seed": seed, **layout.arguments},
        backbone=network.name,
        weights="given",
        provider="given",
        **dict.fromkeys(STAGES, 0.0),
        **drawn,
    )
