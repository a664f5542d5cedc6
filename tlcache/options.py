"""What an option is: the values it takes, how they are read from text, what it means. It is said once.

An option is an annotated parameter of a public function, or an annotated field of a dataclass of settings:

    epochs: Annotated[int, Option("Epochs that train the backbone", whole(1))] = 15

Its checks, the parameter sections of docstrings, the command line (`tlcache.flags`) and docs/reference.md follow from
that.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import SimpleNamespace
from typing import Any, TypeVar, cast, get_args, get_type_hints

from tlcache.errors import OptionError, UnknownNameError, closest
from tlcache.kinds import Kind, listed, listing

__all__ = [
    "Option",
    "Parameter",
    "asked",
    "check_fields",
    "check_names",
    "dealt",
    "described",
    "made",
    "parameters",
    "python_type",
]

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


@dataclass(frozen=True)
class Option:
    """What an option means.

    Parameters
    ----------
    help
        One sentence, without a full stop.
    kind
        The values it takes; None is allowed where it is the default.
    panel
        The heading that it stands under in `--help`.
    flag, short
        On the command line, where that is not its name: "--model", "-m".
    default
        The default in words, where the value does not say it.
    more
        What else there is to say in docs.
    hints
        Names that a shell proposes, where any text may be right.
    """

    help: str
    kind: Kind
    panel: str = "Options"
    flag: str = ""
    short: str = ""
    default: str = ""
    more: str = ""
    hints: Callable[[], Iterable[str]] = tuple


@dataclass(frozen=True)
class Parameter:
    """An option as a parameter of a function or a field of a dataclass; MISSING for a default: it must be given."""

    name: str
    option: Option
    default: Any
    may_be_none: bool

    @property
    def kind(self) -> Kind:
        """The values it takes."""
        return self.option.kind

    @property
    def flag(self) -> str:
        """What it is called on the command line."""
        return self.option.flag or f"--{self.name.replace('_', '-')}"

    @property
    def is_argument(self) -> bool:
        """Whether the command line takes it without a name."""
        return not self.flag.startswith("-")

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is MISSING

    @property
    def default_words(self) -> str:
        """The default for people; empty where there is none to tell."""
        silent = self.default is None or self.default is False or self.default == ()
        if self.option.default or self.is_required or silent:
            return self.option.default
        if self.default is True:
            return "true"
        return ", ".join(map(str, self.default)) if isinstance(self.default, tuple) else str(self.default)

    def check(self, value: Any) -> None:
        """Raise OptionError where this is no value for it."""
        if not (value is None and self.may_be_none) and not self.kind.allows(value):
            listed_words = self.kind.gather and isinstance(value, Iterable)
            raise self._refusal(",".join(map(str, listing(value))) if listed_words else str(value))

    def read(self, word: str, within: str = "") -> Any:
        """Return the value that a word says; `within` is the option that took it, where that is another one.

        Raises
        ------
        OptionError
            It says none.
        """
        word = word.strip()
        if word == "none" and self.may_be_none and word not in self.kind.choices():
            return None
        with suppress(ValueError):
            return self.kind.value(word)
        raise self._refusal(word, within)

    def gather(self, words: Sequence[str]) -> Any:
        """Return the value that a command line gives, where the option stands once or several times.

        Raises
        ------
        OptionError
            It says none, or an option that takes one value is given several times.
        """
        if self.kind.gather:
            value = None
            with suppress(ValueError):
                value = self.kind.gather(words)
            if value is None:
                raise self._refusal(",".join(words))
            if not value:
                some = ", ".join(self.kind.choices()) or self.kind.takes
                raise OptionError(f"{self.flag} names nothing. Leave it out for all, or give some of: {some}.")
            return value
        if len(words) > 1:
            given = " and ".join(f"'{word}'" for word in words)
            raise OptionError(f"{self.flag} takes one value; found {given}. Give it once.")
        return self.read(words[0])

    def _refusal(self, found: str, within: str = "") -> OptionError:
        choices = list(self.kind.choices())
        if choices:
            missing = [each for each in listed([found]) if each not in choices] if self.kind.gather else [found]
            noun = self.flag.removeprefix("--").replace("-", " ").removesuffix("s" if self.kind.gather else "\0")
            where = f"{noun} in {within}" if within else noun
            return UnknownNameError(closest(where, (missing or [found])[0], choices))
        flag = f"{within} {self.flag.removeprefix('--')}" if within else self.flag
        return OptionError(f"{flag} takes {self.kind.takes}; found '{found}'.")


@functools.cache
def parameters(source: Any) -> Mapping[str, Parameter]:
    """Return the options among the parameters of a function or the fields of a dataclass, in their order."""
    if hasattr(source, "__options__"):
        found_before: Mapping[str, Parameter] = source.__options__
        return found_before
    hints = {name: hint for name, hint in source.__annotations__.items() if name != "return"}
    known = get_type_hints(SimpleNamespace(__annotations__=hints), vars(sys.modules[source.__module__]), None, True)
    if is_dataclass(source):
        defaults = {field.name: field.default for field in fields(source)}
    else:
        empty = inspect.Parameter.empty
        signature = inspect.signature(source).parameters
        defaults = {name: MISSING if each.default is empty else each.default for name, each in signature.items()}
    found = {}
    for name, hint in known.items():
        type_, *notes = get_args(hint) or (hint,)
        for option in (each for each in notes if isinstance(each, Option)):
            found[name] = Parameter(name, option, defaults[name], type(None) in get_args(type_))
    return found


def check_fields(settings: Any) -> None:
    """Check every field of a dataclass of settings; for its `__post_init__`."""
    known: Any = type(settings)
    for name, parameter in parameters(known).items():
        parameter.check(getattr(settings, name))


def asked(settings: Any, *later: str) -> dict[str, Any]:
    """Return a dataclass of settings as records hold it: fields that came `later` only where they are not the default.

    What was recorded before there were these fields is found again by that.
    """
    known: Any = type(settings)
    pairs = ((name, getattr(settings, name), each.default) for name, each in parameters(known).items())
    return {name: value for name, value, default in pairs if name not in later or value != default}


def made(settings: Any, given: Mapping[str, Any]) -> Any:
    """Return a dataclass of settings with some of its fields given.

    Raises
    ------
    OptionError
        There is no such setting, or it may not have this value.
    """
    check_names(settings, given)
    return settings(**given)


def dealt(given: Mapping[str, Any], *settings: Any) -> tuple[Any, ...]:
    """Return several dataclasses of settings, each made of those of the given fields that are its own.

    Raises
    ------
    OptionError
        As `made`; a name that none of them has is told by the last.
    """
    first, *rest = settings
    own = {name: value for name, value in given.items() if name in parameters(first) or not rest}
    others = {name: value for name, value in given.items() if name not in own}
    return (made(first, own), *(dealt(others, *rest) if rest else ()))


def check_names(settings: Any, names: Iterable[str]) -> None:
    """Raise OptionError where there is no such setting."""
    known = parameters(settings)
    for name in names:
        if name not in known:
            raise UnknownNameError(closest("setting", name, known))


def described(*settings: Any) -> Callable[[_Decorated], _Decorated]:
    """Return a decorator that documents the options of a function or dataclass, and checks those of a function.

    `settings` are dataclasses whose fields the function takes as `**keywords`: they become part of its signature.
    """

    def decorate(thing: _Decorated) -> _Decorated:
        own = dict(parameters(cast(Any, thing)))
        for each in settings:
            own |= parameters(each)
        thing.__doc__ = _with_parameters(thing.__doc__ or "", own.values())
        if isinstance(thing, type):
            return thing
        return cast(_Decorated, _checked(thing, own, inspect.signature(thing), _expanded(thing, settings)))

    return decorate


def _checked(
    function: Any, known: Mapping[str, Parameter], signature: inspect.Signature, shown: inspect.Signature
) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        for name, value in signature.bind(*args, **keywords).arguments.items():
            if name in known:
                known[name].check(value)
        return function(*args, **keywords)

    call.__signature__ = shown  # type: ignore[attr-defined]
    call.__options__ = known  # type: ignore[attr-defined]
    return call


def _expanded(function: Callable[..., Any], settings: Iterable[Any]) -> inspect.Signature:
    """Return a function's signature with the options of `settings` in the place of `**keywords`."""
    signature = inspect.signature(function)
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    taken = {each.name for each in own}
    more = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for each in settings
        for field in fields(each)
        if field.name not in taken and field.name in parameters(each)
    ]
    return signature.replace(parameters=[*own, *more])


_HEADING = "Parameters\n----------\n"
_SECTION = re.compile(r"^(Returns|Yields|Raises|Examples|Attributes|Notes)\n-{3,}$", re.MULTILINE)


def _with_parameters(doc: str, own: Iterable[Parameter]) -> str:
    """Return a docstring with its parameter section, before the first of the sections that come after it."""
    doc = inspect.cleandoc(doc)
    lines = "\n".join(map(_described, own))
    if _HEADING in doc:
        return doc.replace(_HEADING, f"{_HEADING}{lines}\n", 1)  # the others, which are no options, come last
    found = _SECTION.search(doc)
    before, after = (doc[: found.start()], doc[found.start() :]) if found else (doc + "\n\n", "")
    return f"{before}{_HEADING}{lines}\n" + (f"\n{after}" if after else "")


def _described(parameter: Parameter) -> str:
    """Return the lines of a numpydoc section for a parameter."""
    option = parameter.option
    text = ". ".join(filter(None, [option.help, option.more])).rstrip(".") + "."
    words = parameter.default_words or ("" if parameter.is_required else str(parameter.default))
    head = f"{parameter.name} : {python_type(parameter)}" + (f", default: {words}" if words else "")
    return "\n".join([head, *textwrap.wrap(text, 110, initial_indent="    ", subsequent_indent="    ")])


def python_type(parameter: Parameter) -> str:
    """Return what a docstring calls the type of a parameter."""
    return f"{parameter.kind.type} or None" if parameter.may_be_none else parameter.kind.type
