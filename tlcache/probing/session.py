"""One call that fits heads: what it asks of every feature file, where runs go, and who is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tlcache.arguments import check_task
from tlcache.cache.joined import Joined, open_joined
from tlcache.cache.resplit import FeatureSet, apply_split
from tlcache.datasets.tasks import task_of
from tlcache.errors import DamagedError, HeadError
from tlcache.probing.protocol import SearchProtocol
from tlcache.progress import Advance, say, warn
from tlcache.tasks import CLASSIFY, TASKS

__all__ = ["Session", "opened"]


@dataclass(frozen=True)
class Session:
    """What all feature files that heads are fitted on in one call have in common.

    Parameters
    ----------
    folder
        Of run records.
    protocol
        How settings are chosen.
    split, split_seed
        As of `opened`.
    force
        Do again what is recorded.
    advance
        Called with how many heads are done, whether fitted, read or left out.
    on_warning
        Called for each head that is left out.
    """

    folder: Path
    protocol: SearchProtocol
    split: str
    split_seed: int
    force: bool
    advance: Advance
    on_warning: Callable[[str], None] = warn
    _told: set[str] = field(default_factory=set, repr=False, compare=False)

    @contextmanager
    def opened(self, paths: Sequence[Path], **of_classes: object) -> Iterator[FeatureSet]:
        """Open a feature file, or several as one, and say what its dataset was understood to be, once for each.

        Raises
        ------
        OptionError
            One of the options `of_classes` is given, and the labels are no classes.
        """
        with opened(paths, self.split, self.folder, self.split_seed, TASKS) as file:
            check_task(task_of(file.attrs), **of_classes)
            line = f"{file.attrs['dataset']}: {file.overview()}"
            if line not in self._told:
                self._told.add(line)
                say(line)
            yield file

    @contextmanager
    def leaving_out(self, *where: str) -> Iterator[None]:
        """Leave a head out that cannot be fitted, after an `on_warning` that says where."""
        try:
            yield
        except HeadError as error:
            self.on_warning(f"{error} ({', '.join(where)})")


@contextmanager
def opened(
    paths: Sequence[Path], split: str, runs: Path, seed: int, tasks: Sequence[str] = (CLASSIFY,)
) -> Iterator[FeatureSet]:
    """Open a feature file, or several as one, to read all rows, under a split of `tlcache.cache.resplit.KINDS`.

    `tasks` are what whoever asks can learn.
    """
    try:
        with open_joined(paths) as file:
            if isinstance(file, Joined) and file.left_out:
                warn(file.left_out)
            yield apply_split(file, split, runs, seed, tasks)
    except DamagedError as error:
        raise DamagedError(f"{error} To leave it out, name the others: tlcache fit-heads PATH ...") from None
