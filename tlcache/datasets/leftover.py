"""What of a folder belongs to no class: counted by kind, and what its user should look into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from tlcache.datasets.classes import ClassFolder
from tlcache.datasets.tree import Place, describe_data
from tlcache.keys import some

__all__ = ["Leftover"]


class Leftover:
    """What is left of a folder beside its classes.

    Parameters
    ----------
    top
        The dataset's folder.
    classes
        Those that were found in it.
    splits
        Paths of folders that are splits by their names.

    Attributes
    ----------
    passed_over
        Kind -> how many: endings of files (".txt"), or nouns ("hidden file", "@eaDir folder").
    """

    def __init__(self, top: Place, classes: Sequence[ClassFolder], splits: Collection[str]) -> None:
        self.passed_over = Counter[str]()
        self._top, self._splits = top, splits
        self._empty: list[Place] = []
        self._seen = {id(each.place.tree) for each in classes}
        for each in classes:
            self.passed_over += each.place.tree.everything()
        self._visit(top)

    def _visit(self, place: Place) -> None:
        """Count what lies in a folder that is no class."""
        tree = place.tree
        if id(tree) in self._seen:
            return
        self._seen.add(id(tree))
        if tree.is_output():
            self.passed_over[f"{place.name} folder"] += 1
        elif not tree.has_images():
            self._empty.append(place)
            self.passed_over += tree.everything()
        else:
            self.passed_over += tree.passed_over
            if tree.images:
                self.passed_over["stray file"] += len(tree.images)
            for each in place.folders():
                self._visit(each)

    def warnings(self) -> tuple[str, ...]:
        """Return a sentence on each of: empty folders, given splits without images, dangling links."""
        unused = [each.path for each in self._empty if each.path in self._splits]
        empty = [each for each in self._empty if each.path not in self._splits]
        dangling = [f"{path}/{name}".lstrip("/") for path, tree in self._top.tree.walk() for name in tree.dangling]
        lines = []
        if unused:
            lines.append(f"No images in {some(unused)}: what is given by that name is empty, and is drawn from train.")
        if empty:
            other = describe_data(sum((each.tree.everything() for each in empty), Counter[str]()))
            names = some([each.path for each in empty])
            lines.append(f"No images in {names}; these are not classes here. {other}".strip())
        if dangling:
            lines.append(f"Links to folders that are not there: {some(dangling)}. Mend them if they were classes.")
        return tuple(lines)
