"""Options as a command line: what typer is told of them, and how what was typed becomes values."""

from __future__ import annotations

import functools
import inspect
import json
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from tlcache.arguments import OUTPUT, PANELS
from tlcache.errors import OptionError
from tlcache.files import first_line_of, write_whole
from tlcache.kinds import PATH, SWITCH
from tlcache.options import Option, Parameter, parameters
from tlcache.progress import show_progress

__all__ = ["Output", "command"]


@dataclass(frozen=True)
class Output:
    """Where a command's results go.

    Parameters
    ----------
    json
        The file that figures are written to; `-` is standard output, and what people read is then on standard error.
    verbose
        Whether to explain what the columns of tables mean, and the like.
    """

    json: Path | None = None
    verbose: bool = False

    @property
    def _is_piped(self) -> bool:
        return str(self.json) == "-"

    def show(self, item: Any = "") -> None:
        """Print something that rich can print."""
        from tlcache.display import plain_console

        plain_console(stderr=self._is_piped).print(item)

    def say(self, line: object) -> None:
        """Print a line, as long as it is."""
        typer.echo(line, err=self._is_piped)

    def confirm(self, question: str) -> bool:
        """Return whether the answer is yes.

        Raises
        ------
        OptionError
            Nobody can answer.
        """
        try:
            return typer.confirm(question, err=self._is_piped)
        except typer.Abort:
            raise OptionError(f"Nobody is there to answer '{question}' Give --yes.") from None

    def write(self, figures: Mapping[str, Any]) -> None:
        """Write the figures where `--json` says, if it does."""
        if not self.json:
            return
        text = json.dumps(figures, indent=1) + "\n"
        if self._is_piped:
            sys.stdout.write(text)
            sys.stdout.flush()
        elif self.json.exists() and not self.json.is_file():
            self.json.write_text(text)  # a pipe or a device is written to, not replaced
        else:
            write_whole(self.json, text.encode())


def _common(
    json: Annotated[
        Path | None, Option("Write the same figures to this file; - is standard output", PATH, OUTPUT)
    ] = None,
    quiet: Annotated[bool, Option("Tell nothing but results, warnings and errors", SWITCH, OUTPUT, short="-q")] = False,
    verbose: Annotated[
        bool, Option("Explain the columns of tables, and what is done", SWITCH, OUTPUT, short="-v")
    ] = False,
) -> Output:
    """Return where results go, and let messages and bars be seen."""
    if json and first_line_of(json)[:1] not in (b"", b"{"):
        raise OptionError(f"'{json}' is there and holds no figures, which would replace it. Give another --json.")
    show_progress(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO, bars=not quiet)
    return Output(json, verbose)


def command(
    app: typer.Typer, *inherited: Mapping[str, Parameter], panel: str, name: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that makes a command of a function.

    The function's first parameter is an `Output`. Its options are those that it declares itself, and those that are
    given here, which it takes as `**options`: only what was typed is among these, so that the library's defaults hold.
    `panel` is the heading that the command is listed under.
    """

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        named: dict[str, Parameter] = {}
        for some in (*reversed(inherited), parameters(body), parameters(_common)):
            named |= some
        known = sorted(named.values(), key=_place)

        @functools.wraps(body)
        def call(**typed: Any) -> None:
            given = {each.name: _value(each, typed[each.name]) for each in known if _is_given(typed[each.name])}
            common = {key: given.pop(key) for key in parameters(_common) if key in given}
            body(_common(**common), **given)

        signature = inspect.Signature([_as_typed(each) for each in known])
        call.__signature__ = signature  # type: ignore[attr-defined]
        call.__options__ = {each.name: each for each in known}  # type: ignore[attr-defined]
        call.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
        paragraphs = (inspect.getdoc(body) or "").split("\n\n")
        whole = "\n\n".join(" ".join(each.split()) for each in paragraphs)  # or lines would end as they do in the code
        app.command(name, help=whole, rich_help_panel=panel)(call)
        return body

    return decorate


def _place(parameter: Parameter) -> tuple[bool, int, bool]:
    return not parameter.is_argument, PANELS.index(parameter.option.panel), not parameter.is_required


def _is_given(typed: Any) -> bool:
    return typed is not None and typed != []


def _value(parameter: Parameter, typed: Any) -> Any:
    return typed if parameter.kind is SWITCH else parameter.gather(typed)


def _as_typed(parameter: Parameter) -> inspect.Parameter:
    """Return a parameter as typer is to take it: every option may be repeated, so that it can be said to be wrong."""
    option, words = parameter.option, parameter.default_words
    about = f"{option.help}. {option.more}" if option.more.startswith("See: ") else option.help
    if words and parameter.kind is not SWITCH:
        about += rf" [dim]\[default: {words}][/dim]"
    shared: dict[str, Any] = {"help": about, "rich_help_panel": option.panel, "show_default": False}
    names = [parameter.flag, *([option.short] if option.short else [])]
    annotation: Any
    if parameter.kind is SWITCH:
        names = [f"{names[0]}/--no-{names[0][2:]}"] if parameter.default is True else names
        annotation = Annotated[bool | None, typer.Option(*names, metavar="", **shared)]
    elif parameter.is_argument:
        del shared["rich_help_panel"]
        annotation = Annotated[list[str] | None, typer.Argument(metavar=parameter.flag, **shared)]
    else:
        shared |= {"metavar": parameter.kind.shown, "autocompletion": _completion(parameter)}
        annotation = Annotated[list[str] | None, typer.Option(*names, **shared)]
        if parameter.is_required:
            annotation = Annotated[list[str], typer.Option(*names, **shared)]
    default = inspect.Parameter.empty if parameter.is_required else None
    return inspect.Parameter(parameter.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _completion(parameter: Parameter) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        names = [*parameter.kind.choices(), *parameter.option.hints()]
        return [name for name in names if name.startswith(incomplete)]

    return complete
