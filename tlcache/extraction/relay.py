"""A pipe from a worker process to its parent: messages and bars on the way, which the parent shows, and then an answer.

Each is a line of JSON, written at once so that those of several processes do not mix.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count as numbers
from typing import TYPE_CHECKING, Any

from tlcache.progress import logger, open_bar, set_display

if TYPE_CHECKING:
    from tlcache.display import Update

__all__ = ["Receiver", "Sender"]


class Sender(logging.Handler):
    """The worker's end."""

    def __init__(self, pipe: int) -> None:
        super().__init__()
        self._pipe, self._numbers = pipe, numbers()

    def install(self) -> None:
        """Send what this process has to say from now on, all of it: the parent knows what is wanted."""
        logger.addHandler(self)
        logger.setLevel(logging.DEBUG)
        set_display(self.bar)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a message."""
        self._send("message", record.levelno, record.getMessage())

    @contextmanager
    def bar(self, kind: str, label: str, total: int) -> Iterator[Update]:
        """Send how far some work is."""
        number = next(self._numbers)
        self._send("bar", number, kind, label, total)
        try:
            yield lambda steps, label="": self._send("steps", number, steps, label)
        finally:
            self._send("end", number)

    def part(self, fields: Any) -> None:
        """Send a part of what the parent waits for."""
        self._send("part", fields)

    def answer(self, fields: Any) -> None:
        """Send what the parent waits for."""
        self._send("answer", fields)

    def _send(self, *what: Any) -> None:
        line = json.dumps(what).encode() + b"\n"
        with suppress(BrokenPipeError):  # the parent is gone, and so will be this process
            while line:
                line = line[os.write(self._pipe, line) :]


class Receiver:
    """The parent's end; as a context, it closes the bars of a worker that died.

    Parameters
    ----------
    tell
        Called with every part of an answer, when it comes.
    answer
        What the worker answered; None where it has not.
    """

    def __init__(self, pipe: int, tell: Callable[[Any], None] = lambda _: None) -> None:
        self.answer: Any = None
        self._pipe, self._rest, self._tell = pipe, b"", tell
        self._bars: dict[int, tuple[Update, ExitStack]] = {}

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        for _bar, shown in self._bars.values():
            shown.close()

    def read(self) -> None:
        """Show what comes until the worker ends. An interrupt may cost a line, and then this can be called again."""
        while some := os.read(self._pipe, 1 << 16):
            *lines, self._rest = (self._rest + some).split(b"\n")
            for line in lines:
                with suppress(json.JSONDecodeError):  # what is left of a line that an interrupt cut
                    self._take(json.loads(line))

    def _take(self, what: Any) -> None:
        match what:
            case ["message", level, text]:
                logger.log(level, text)
            case ["bar", number, kind, label, total]:
                shown = ExitStack()
                self._bars[number] = shown.enter_context(open_bar(kind, label, total)), shown
            case ["steps", number, count, label] if number in self._bars:
                self._bars[number][0](count, label)
            case ["end", number] if number in self._bars:
                self._bars.pop(number)[1].close()
            case ["part", fields]:
                self._tell(fields)
            case ["answer", fields]:
                self.answer = fields
