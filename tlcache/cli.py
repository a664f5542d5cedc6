"""The command line: each command parses, calls the library, and prints."""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Annotated

import typer

from tlcache.commands import choices, experiment, first, judging, kept, looking, using
from tlcache.commands.base import app, interrupt
from tlcache.version import __version__

__all__ = ["app", "main"]

_HEADINGS = [each.PANEL for each in (experiment, judging, looking, using, choices, kept, first)]
app.registered_commands.sort(key=lambda each: _HEADINGS.index(each.rich_help_panel))


def main() -> None:
    """Run the command line; 141: whoever read had enough, as a shell says of any program that ends so."""
    signal.signal(signal.SIGTERM, interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error has it: no letter ends a command
    try:
        app()
    except SystemExit as ended:
        if not isinstance(ended.__context__, BrokenPipeError):  # of which typer and rich make an exit with status 1
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where what is still in buffers goes
        sys.exit(141)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", "-V", help="Print the version")] = False) -> None:
    """Find out which pretrained backbone and which head suit a dataset, and whether fine-tuning is worth it.

    Embed every image once, keep the embeddings, compare heads on them in seconds.
    """
    if version:
        typer.echo(f"tlcache {__version__}")
        raise typer.Exit
