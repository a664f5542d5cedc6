"""Why an image may have been taken for a class: the most similar images that were trained on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcache.auditing.choice import project
from tlcache.cache.feature_file import FeatureFile
from tlcache.errors import CacheError
from tlcache.pictures.projection import Projection, components, pca

__all__ = ["Near", "Nearest", "Reasons", "near_in"]


class Nearest(NamedTuple):
    """An image of a class, and the cosine of its whitened embedding with that of the image it explains."""

    path: str
    cosine: float


Near = Callable[[str, str], Nearest | None]  # path of an image, class


class Reasons:
    """The images of a feature file, where they are compared.

    Parameters
    ----------
    path
        The feature file.

    Attributes
    ----------
    backbone, name
        What embedded them, and the name of the file without `.h5`.

    Raises
    ------
    CacheError
        It is gone or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        with FeatureFile(path) as file:
            self._known, self._classes = project(file), file.classes
            self.backbone = str(file.attrs["backbone"])
        self._rows = {path: row for row, path in enumerate(self._known.rows.paths)}

    @classmethod
    def of(cls, paths: Collection[str]) -> Reasons | None:
        """Return those of the first feature file that can be read; None where there is none."""
        for path in map(Path, paths):
            try:
                return cls(path)
            except CacheError:
                continue
        return None

    def plane(self) -> tuple[Sequence[str], Projection]:
        """Return the paths of all images, and where they lie in the plane of their first two principal components."""
        return self._known.rows.paths, pca(*components(self._known.rows.features))

    def without(self, test: Collection[str]) -> Near:
        """Return what finds the image of a class that is most similar to another image, among those that are no test.

        Of a cross-validation, where all are, it looks among all.
        """
        tested = set(test)
        known = np.array([path not in tested for path in self._known.rows.paths])
        return partial(self._nearest, known if known.any() else ~known)

    def _nearest(self, among: NDArray[np.bool_], path: str, label: str) -> Nearest | None:
        if path not in self._rows or label not in self._classes:
            return None
        row, number = self._rows[path], self._classes.index(label)
        rows = np.flatnonzero((self._known.rows.labels == number) & among)
        rows = rows[rows != row]
        if not len(rows):
            return None
        cosines = self._known.embeddings[rows] @ self._known.embeddings[row]
        best = int(cosines.argmax())
        return Nearest(self._known.rows.paths[rows[best]], min(float(cosines[best]), 1.0))


def near_in(reasons: Reasons | None, test: Collection[str] = ()) -> Near:
    """Return `reasons.without(test)`; what finds nothing where there are none."""
    return reasons.without(test) if reasons else lambda *_: None
