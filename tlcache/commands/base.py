"""What all commands share: the app, errors as messages, work that may be stopped, problems that are told."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated, Any, NoReturn

import typer

from tlcache.arguments import OUTPUT
from tlcache.errors import OptionError, TlcacheError
from tlcache.kinds import SWITCH, text
from tlcache.options import Option
from tlcache.progress import warn

__all__ = ["PATTERN", "Problems", "StoppedError", "Yes", "app", "fail_after", "interrupt", "stop", "stoppable"]


class _Commands(typer.core.TyperGroup):
    """The commands: a known error is one message and a status, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; 2: what was typed is wrong, 1: the work failed, 130: it was stopped."""
        try:
            return super().invoke(ctx)
        except TlcacheError as error:
            stop(f"error: {error}", 2 if isinstance(error, OptionError) else 1)
        except StoppedError as stopped:
            stop(str(stopped), 130)
        except BrokenPipeError:  # see `main`
            raise
        except OSError as error:  # a file that cannot be read or written: the message names it
            stop(f"error: {error.strerror or error}: {error.filename or 'no file named'}", 1)


app = typer.Typer(
    name="tlcache",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class StoppedError(Exception):
    """Ctrl-C or SIGTERM in work that can be continued; Typer would end on KeyboardInterrupt without a word."""


@contextlib.contextmanager
def stoppable(then: str) -> Iterator[None]:
    """Work that Ctrl-C or SIGTERM may stop; `then` says what becomes of it."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        raise StoppedError(f"{stopped if str(stopped) else 'stopped'}; {then}") from None


def interrupt(*_: object) -> NoReturn:
    """Make of a signal what Ctrl-C is."""
    raise KeyboardInterrupt


def stop(message: str, status: int) -> NoReturn:
    """End with a message on standard error."""
    from tlcache.display import plain_console

    plain_console(stderr=True).print(message, style="bold red", soft_wrap=True)
    sys.exit(status)


class Problems(list[str]):
    """Warnings of work that goes on: printed when they are told, and kept for the status at the end."""

    def __call__(self, line: str) -> None:
        """Tell one."""
        warn(line)
        self.append(line)


def fail_after(problems: Problems) -> None:
    """End with status 1 if there were any."""
    if problems:
        raise typer.Exit(1)


Yes = Annotated[bool, Option("Do not ask", SWITCH, OUTPUT, short="-y")]
PATTERN = text("PATTERN")
