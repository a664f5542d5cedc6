"""Which rows of a feature file are most similar to images: its own, by name, and new ones, which are embedded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tlcache.auditing.choice import project
from tlcache.auditing.listing import Listing
from tlcache.cache.attributes import extract_arguments
from tlcache.cache.feature_file import FeatureFile
from tlcache.datasets.anywhere import open_anywhere
from tlcache.datasets.dataset import reopen
from tlcache.datasets.source import Images
from tlcache.deploying.inputs import parted
from tlcache.errors import DataError
from tlcache.extraction.embed import Block, embed
from tlcache.heads.cosines import closest
from tlcache.heads.rows import Array
from tlcache.pictures.found import Asked, Neighbour, Similar

__all__ = ["search"]


def search(file: FeatureFile, images: Sequence[str], n: int, **how: Any) -> Similar:
    """Return the n rows that are most similar to each image; `how` and errors are those of `tlcache.similar`."""
    searched, place = _Searched(file), reopen(file.attrs["source"])
    own, given = _parted(images, searched.known.rows.paths)
    rows, errors = _embedded(file, given, **how)
    where = open_anywhere(given)
    asked = [(path, place, searched.hashes[row]) for path, row in own.items()]
    asked += [(path, where, _hash(where, path)) for path in given if path not in errors]
    vectors = np.concatenate([searched.known.embeddings[list(own.values())], searched.known.space(rows)])
    nearest = searched.nearest(vectors, [sha256 for *_, sha256 in asked], n)
    found = tuple(Asked(path, place, near) for (path, place, _), near in zip(asked, nearest, strict=True))
    about = str(file.attrs["dataset"]), str(file.attrs["backbone"]), len(searched.known.rows)
    return Similar(*about, place, found, errors)


class _Searched:
    """The rows of a feature file where they are compared, and their names."""

    def __init__(self, file: FeatureFile) -> None:
        self.known, self.hashes = project(file), file.hashes().astype(str).tolist()
        self._listed = Listing(self.known.rows, file.split_numbers(), file.classes)

    def nearest(self, vectors: Array, hashes: Sequence[str], n: int) -> Iterator[tuple[Neighbour, ...]]:
        """Yield the rows most similar to each vector, float32 (m, k) of images with these hashes."""
        cosines, numbers = closest(vectors, self.known.embeddings, n)
        for sha256, rows, similarity in zip(hashes, numbers.tolist(), cosines.tolist(), strict=True):
            yield tuple(
                self._neighbour(row, cosine, self.hashes[row] == sha256)
                for row, cosine in zip(rows, similarity, strict=True)
            )

    def _neighbour(self, row: int, cosine: float, same: bool) -> Neighbour:
        where = self.known.rows.paths[row], self._listed.split(row), self._listed.label(row)
        return Neighbour(*where, min(cosine, 1.0), same)


def _parted(given: Sequence[str], paths: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Return path -> row of those that are the dataset's own by name and no file, and the paths of all others."""
    rows = {path: row for row, path in enumerate(paths)}
    own, others = parted(given, rows)
    return {each: rows[each] for each in own}, list(dict.fromkeys(others))


def _embedded(file: FeatureFile, paths: Sequence[str], **how: Any) -> tuple[Array, dict[str, str]]:
    """Return the embeddings of those images that can be used, float32 (n, dim), and why the others cannot."""
    parts, errors = [np.empty((0, file.dim), np.float32)], dict[str, str]()
    if not paths:
        return parts[0], errors
    request = extract_arguments(file.attrs)
    if "embeddings" in request:
        raise DataError(
            f"The embeddings of '{file.attrs['dataset']}' were adopted, without a network that could embed "
            f"'{paths[0]}'. Give the path of one of its own images."
        )

    def take(block: Block) -> None:
        parts.extend([block.rows] * (len(block.rows) > 0))  # without rows it does not know how long they are
        errors.update((paths[number], why) for number, why in block.bad.items())

    embed(paths, request, str(file.attrs["key"]), take, **how)
    return np.concatenate(parts), errors


def _hash(images: Images, path: str) -> str:
    return hashlib.sha256(images.read(path)).hexdigest()
