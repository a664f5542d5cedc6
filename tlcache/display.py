"""How progress and messages look: bars on a terminal or in a notebook, and a line now and then in a log file.

A display is called with a kind of work, a label and a total (0: unknown), and gives for as long as the work lasts a
function that takes the steps just done and, where it changes, the label.
"""

from __future__ import annotations

import html
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich import filesize
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

__all__ = ["Display", "Lines", "Messages", "Notebook", "Terminal", "Update", "plain_console"]

_LINE_S = 30.0  # between two lines of a log file
_FRAME_S = 0.2  # between two pictures of a notebook's bar


def plain_console(*, stderr: bool) -> Console:
    """Return where to print: names have brackets, colons and figures in them, which are to be seen as they are."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


class Update(Protocol):
    """What counts the steps of some work, and may change its label."""

    def __call__(self, steps: int, label: str = "") -> None:
        """Add steps; an empty label leaves it as it is."""


Display = Callable[[str, str, int], AbstractContextManager[Update]]


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} images/s" if task.speed else "")


_COLUMNS: dict[str, tuple[ProgressColumn, ...]] = {
    "bytes": (DownloadColumn(), TransferSpeedColumn()),
    "images": (MofNCompleteColumn(), _Rate(), TimeRemainingColumn()),
    "training": (_Rate(), TimeRemainingColumn()),
    "steps": (MofNCompleteColumn(), TimeElapsedColumn()),
}


class _Figures(ProgressColumn):
    """What there is to say of each kind of work, in one column, so that bars of several kinds can be shown together."""

    def render(self, task: Task) -> Text:
        shown = (column(task) for column in _COLUMNS[task.fields["kind"]])
        return Text(" ").join(text for text in shown if isinstance(text, Text))


class Terminal:
    """Bars at the bottom of a terminal, gone when their work is done; `console` prints above them."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), _Figures())
        self._shown, self._lock = Progress(*columns, console=console, transient=True), threading.Lock()

    @contextmanager
    def __call__(self, kind: str, label: str, total: int) -> Iterator[Update]:
        """Show a bar."""
        with self._lock:
            task = self._shown.add_task(label, total=total or None, kind=kind)
            self._shown.start()  # only the first of several bars does something here

        def update(steps: int, label: str = "") -> None:
            self._shown.update(task, advance=steps, description=label or None)

        try:
            yield update
        finally:
            with self._lock:
                if self._shown.task_ids == [task]:
                    self._shown.stop()
                self._shown.remove_task(task)


class Lines:
    """Lines in a log file, at most one in 30 s for each work that goes on."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock

    @contextmanager
    def __call__(self, kind: str, label: str, total: int) -> Iterator[Update]:
        """Say now and then how far the work is."""
        yield _Count(kind, label, total, lambda count: self._say(count.line()), _LINE_S, self._clock)


class Notebook:
    """Bars of HTML below a notebook's cell, gone when their work is done."""

    @contextmanager
    def __call__(self, kind: str, label: str, total: int) -> Iterator[Update]:
        """Show a bar."""
        from IPython.display import HTML, display

        shown = display(HTML(""), display_id=True)
        try:
            yield _Count(kind, label, total, lambda count: shown.update(HTML(count.html())), _FRAME_S, time.monotonic)
        finally:
            shown.update(HTML(""))


class _Count:
    """How far some work is, told when it goes on and some seconds have passed since the last time."""

    def __init__(
        self,
        kind: str,
        label: str,
        total: int,
        tell: Callable[[_Count], None],
        every_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.kind, self.label, self.total, self.done = kind, label, total, 0
        self._tell, self._every_s, self._clock = tell, every_s, clock
        self._began = self._told = clock()

    def __call__(self, steps: int, label: str = "") -> None:
        self.done, self.label = self.done + steps, label or self.label
        if self._clock() - self._told >= self._every_s:
            self._told = self._clock()
            self._tell(self)

    def line(self) -> str:
        """Return it in words."""
        rate = self.done / max(self._clock() - self._began, 1e-9)
        if self.kind == "bytes":
            of = f" of {filesize.decimal(self.total)}" if self.total else ""
            return f"{self.label}: {filesize.decimal(self.done)}{of}, {filesize.decimal(int(rate))}/s"
        count = f"{self.label}: {self.done:,}" + (f" of {self.total:,}" if self.total else "")
        return count if self.kind == "steps" else f"{count} images, {rate:,.0f} images/s"

    def html(self) -> str:
        """Return it as a bar and words."""
        share = f' value="{self.done}" max="{self.total}"' if self.total else ""
        return f"<progress{share}></progress> {html.escape(self.line())}"


class Messages(logging.Handler):
    """Prints messages, warnings with the word before them in a colour that can be read on black and on white."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message above the bars, if there are any."""
        word = "warning: " if record.levelno >= logging.WARNING else ""
        self._console.print(Text.assemble((word, "bold magenta"), record.getMessage()), soft_wrap=True)
