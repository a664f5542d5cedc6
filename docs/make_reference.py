"""Write docs/reference.md: python docs/make_reference.py > docs/reference.md."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tlcache.cli import app
from tlcache.kinds import SWITCH
from tlcache.options import Parameter

COMMON = ("json", "quiet", "verbose")
NOT_RUN = {  # of the examples, and why the tests of the pages do not
    "merge": "needs shards of several machines; tests/test_shares.py makes some",
    "track": "needs the whole of MLflow; tests/test_tracking.py keeps runs in files",
    "demo": "takes a minute; tests/test_cli.py runs it on fewer digits",
}
INTRODUCTION = """# Reference

Every command and its options. This page is made from what the program itself goes by: `python
docs/make_reference.py`.


## What holds for all commands

- **Lists** (`--data`, `--model`, `--weights`, `--heads`, `--shots`, paths) are given with commas or by
  repeating the option: `--heads ridge,knn` is `--heads ridge --heads knn`. A path that has a comma in it stays
  whole. An option that takes one value is given once; twice is an error.
- **`--data`** takes a name of what is cached, a folder, a manifest, or a built-in name. What does work on
  images (`extract`, `finetune`, `study`) has to be told which; `extract` alone takes the built-in digits when
  it is not, and says so. What reads what is cached or recorded (`fit-heads`, `compare`, `report`, `audit`,
  `runs`) takes all datasets where none is given.
- **Which image is in which split**, where folders do not say it (`--split-folders`, `--val`, `--test`,
  `--ignore`): [data.md](data.md).
- **`--weights`** takes one for all backbones, or `BACKBONE=FILE` for each of some.
- **Times** (`--budget`) are `90s`, `30m`, `2h`; a number alone is seconds.
- **`--split-seed`** is of splits that are drawn, **`--seed`** of everything random in training.
- **What is recorded is not done again**: `fit-heads`, `finetune` and `study` read it. `--force` does it again.
- **Names** that nothing has are answered with the nearest that there is.
- **The status** is 0; 1 where the work failed or found what it was to look for (`verify`, `audit --strict`); 2
  where what was typed is wrong: a value, a name, options that do not go together; 130 after Ctrl-C; 141,
  without a word, where whatever reads the output has closed it (`| head`). What lists things (`ls`, `runs`)
  ends with 0 where there are none.
- **`--json FILE`** writes the figures; with `--json -` they are on standard output and everything else is on
  standard error. **`--quiet`**, `-q`, tells nothing but results, warnings and errors; **`--verbose`**, `-v`,
  explains the columns of tables.
- In Python options have the same names with `_` for `-` (`--split-seed`: `split_seed=`), save that `--budget`
  is `budget_s=`; lists are lists, and a wrong value raises `tlcache.errors.OptionError`.
"""


def reference() -> Iterator[str]:
    """Yield the page's parts."""
    yield INTRODUCTION
    for each in app.registered_commands:
        callback: Any = each.callback
        name = each.name or callback.__name__.replace("_", "-")
        yield f"## tlcache {name}\n"
        yield from _about(name, callback)
        yield from _tables(callback.__options__)


def _about(name: str, callback: Callable[..., None]) -> Iterator[str]:
    why = f"<!-- not run: {NOT_RUN[name]} -->\n" if name in NOT_RUN else ""
    for part in (inspect.getdoc(callback) or "").split("\n\n"):
        words = " ".join(part.split())
        example = words.removeprefix("Example: ")
        yield f"{words}\n" if example == words else f"{why}```sh\n{example}\n```\n"


def _tables(options: Mapping[str, Parameter]) -> Iterator[str]:
    own = [each for name, each in options.items() if name not in COMMON]
    if own:
        yield "| option | takes | default | |"
        yield "|---|---|---|---|"
        yield from map(_row, own)
        yield ""


def _row(parameter: Parameter) -> str:
    option, names = parameter.option, [parameter.flag, *filter(None, [parameter.option.short])]
    if parameter.kind is SWITCH and parameter.default is True:
        names.append(f"--no-{names[0][2:]}")
    more = f". {option.more}" if option.more else ""
    default = "required" if parameter.is_required else parameter.default_words
    cells = (", ".join(f"`{name}`" for name in names), _takes(parameter), default, f"{option.help}{more}")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _takes(parameter: Parameter) -> str:
    choices = ", ".join(f"`{name}`" for name in parameter.kind.choices())
    return "" if parameter.kind is SWITCH else choices or parameter.kind.takes


if __name__ == "__main__":
    sys.stdout.write("\n".join(reference()))
