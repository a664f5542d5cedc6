"""Progress and messages of long work, for whoever wants them: by itself this library prints nothing.

Messages are logged by the logger `tlcache`. Bars are shown in a notebook; in a script both are shown once it has
called `show_progress`, as the command line does.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from tlcache.machine import is_first

if TYPE_CHECKING:
    from tlcache.display import Display, Update

__all__ = [
    "Advance",
    "byte_bar",
    "hide_progress",
    "image_bar",
    "logger",
    "open_bar",
    "say",
    "set_display",
    "show_progress",
    "step_bar",
    "training_bar",
    "warn",
]

Advance = Callable[[int], None]

logger = logging.getLogger("tlcache")
_display: Display | None = None
_handler: logging.Handler | None = None


def show_progress(level: int = logging.INFO, bars: bool = True) -> None:
    """Show on standard error what goes on: messages, and a bar while long work lasts, or in a file a line now and then.

    For scripts; a notebook has bars anyway. Where a program has configured logging, the messages are part of that: set
    the level of the logger `tlcache` there, and do not call this.

    Parameters
    ----------
    level
        Of the messages, as `logging` has them.
    bars
        Whether to show how far long work is.
    """
    from tlcache.display import Lines, Messages, Terminal, plain_console

    global _handler
    hide_progress()
    console = plain_console(stderr=True)
    _handler = Messages(console)
    logger.addHandler(_handler)
    logger.setLevel(level)
    if not bars:
        set_display(_nothing)
    elif not _in_notebook():
        set_display(Terminal(console) if sys.stderr.isatty() else Lines(say))


def hide_progress() -> None:
    """Undo `show_progress`."""
    global _handler
    if _handler is not None:
        logger.removeHandler(_handler)
        logger.setLevel(logging.NOTSET)
        _handler = None
    set_display(None)


def set_display(display: Display | None) -> None:
    """Let this show how far long work is; None: bars in a notebook, nothing elsewhere."""
    global _display
    _display = display


def _in_notebook() -> bool:
    """Return whether this is Python behind a notebook, whose cells have what is displayed."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


def _ignore(steps: int, label: str = "") -> None:
    del steps, label


@contextmanager
def _nothing(kind: str, label: str, total: int) -> Iterator[Update]:
    del kind, label, total
    yield _ignore


def open_bar(kind: str, label: str, total: int) -> AbstractContextManager[Update]:
    """Show how far work is of a kind that `tlcache.display` knows."""
    display = _display
    if display is None and _in_notebook():
        from tlcache.display import Notebook

        display = Notebook()
    return (display if display and is_first() else _nothing)(kind, label, total)


def byte_bar(label: str, total: int) -> AbstractContextManager[Advance]:
    """Show a download of `total` bytes (0: unknown); call the yielded function with every block's length."""
    return open_bar("bytes", label, total)


def image_bar(label: str, total: int) -> AbstractContextManager[Advance]:
    """Show `total` images being embedded, with images per second and the time left."""
    return open_bar("images", label, total)


def step_bar(label: str, total: int) -> AbstractContextManager[Advance]:
    """Show `total` steps of any kind, with the time so far."""
    return open_bar("steps", label, total)


def training_bar(total: int) -> AbstractContextManager[Update]:
    """Show `total` images being trained on; call the yielded function with images, and how the training goes."""
    return open_bar("training", "training", total)


def warn(message: str) -> None:
    """Log what a user should look into."""
    if is_first():
        logger.warning(message, stacklevel=2)


def detail(message: str) -> None:
    """Log what a user who wants to know all should know."""
    if is_first():
        logger.debug(message, stacklevel=2)


def say(message: str) -> None:
    """Log what a user should know while waiting."""
    if is_first():
        logger.info(message, stacklevel=2)
