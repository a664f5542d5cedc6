"""Progress bars on standard error; silent where that is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from tlcache.machine import is_first

__all__ = ["Advance", "Report", "byte_bar", "image_bar", "say", "step_bar", "training_bar", "warn"]

Advance = Callable[[int], None]


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} images/s" if task.speed else "")


@contextmanager
def _bar(label: str, total: int, *columns: ProgressColumn) -> Iterator[Advance]:
    console = Console(stderr=True)
    shown = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *columns,
        console=console,
        transient=True,
        disable=not (sys.stderr.isatty() and is_first()),
    )
    with shown:
        task = shown.add_task(label, total=total or None)
        yield lambda steps: shown.advance(task, steps)


def byte_bar(label: str, total: int) -> AbstractContextManager[Advance]:
    """Show a download of `total` bytes (0: unknown); call the yielded function with every block's length."""
    return _bar(label, total, DownloadColumn(), TransferSpeedColumn())


def image_bar(label: str, total: int) -> AbstractContextManager[Advance]:
    """Show `total` images being embedded, with images per second and the time left."""
    return _bar(label, total, MofNCompleteColumn(), _Rate(), TimeRemainingColumn())


def step_bar(label: str, total: int) -> AbstractContextManager[Advance]:
    """Show `total` steps of any kind, with the time so far."""
    return _bar(label, total, MofNCompleteColumn(), TimeElapsedColumn())


class Report:
    """What a training tells while it runs: a bar on a terminal, and a line after every epoch anywhere."""

    def __init__(self, shown: Progress, total: int) -> None:
        self._shown, self._task = shown, shown.add_task("training", total=total or None)

    def advance(self, images: int, where: str, loss: float, accuracy: float) -> None:
        """Count images, and show the mean loss and accuracy of the epoch so far."""
        label = f"{where}: loss {loss:.3f}, accuracy {accuracy:.3f}"
        self._shown.update(self._task, advance=images, description=label)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._shown.console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def training_bar(total: int) -> Iterator[Report]:
    """Show `total` images being trained on, with images per second and the time left."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), _Rate(), TimeRemainingColumn())
    console = Console(stderr=True, quiet=not is_first())
    with Progress(*columns, console=console, transient=True, disable=not (sys.stderr.isatty() and is_first())) as shown:
        yield Report(shown, total)


def warn(message: str) -> None:
    """Print a line on standard error that begins with `warning:`."""
    say(f"warning: {message}")


def say(message: str) -> None:
    """Print a line on standard error, for what a user should know while waiting."""
    if is_first():
        Console(stderr=True, soft_wrap=True).print(message, markup=False, highlight=False)
