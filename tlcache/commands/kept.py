"""What is kept: listed, checked, removed, given to other programs and taken from them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlcache.arguments import OUTPUT, Features, OnlyDatasets, Paths, Repair, Runs
from tlcache.commands.base import PATTERN, Problems, Yes, app, fail_after, stoppable
from tlcache.errors import CacheError
from tlcache.exchange.adopt import adopt as _adopt
from tlcache.exchange.dump import dump as _dump
from tlcache.flags import Output, command
from tlcache.kinds import several
from tlcache.options import Option, parameters
from tlcache.progress import warn
from tlcache.tracking.track import track as _track

if TYPE_CHECKING:
    from tlcache.runs.record import Run

__all__ = ["adopt", "dump", "list_files", "list_recorded", "prune", "track", "verify"]

PANEL = "What is kept"


@command(app, name="runs", panel=PANEL)
def list_recorded(
    output: Output,
    data: OnlyDatasets = None,
    remove: Annotated[
        Sequence[str] | None,
        Option("Remove these runs, by name or shell pattern, with all their files", several(PATTERN), OUTPUT),
    ] = None,
    yes: Yes = False,
    runs: Runs = None,
) -> None:
    """List the recorded runs by the names of their files, or remove some of them.

    Example: tlcache runs --remove "mobilenetv2-linear-*"
    """
    from tlcache.report.kept import recorded_table
    from tlcache.runs.folder import list_runs, remove_runs, runs_folder
    from tlcache.runs.naming import named_runs

    problems = Problems()
    found: list[Run] = []
    with contextlib.suppress(CacheError):  # there are none
        found = list_runs(runs, data, problems)
    chosen = named_runs(found, remove) if remove else found
    output.write({"runs": [one.as_json() for one in chosen]})
    if not found:
        output.say(f"No runs are recorded in '{runs_folder(runs)}' yet. Begin with: tlcache fit-heads")
    else:
        output.show(recorded_table(chosen, runs_folder(runs)))
    if remove:
        done = yes or output.confirm("Remove these, with their predictions and heads?")
        output.say(f"Removed {len(remove_runs(chosen) if done else ())} files.")
    fail_after(problems)


@command(app, name="ls", panel=PANEL)
def list_files(output: Output, features: Features = None) -> None:
    """List what is cached: dataset, backbone, rows, size, age, and whether it is complete.

    Example: tlcache ls
    """
    from tlcache.cache.find import features_folder
    from tlcache.inventory.entries import list_cache
    from tlcache.report.kept import cache_table

    entries = list_cache(features)
    output.write({"files": [entry.as_json() for entry in entries]})
    output.show(cache_table(entries, features_folder(features)))


@command(app, panel=PANEL)
def verify(output: Output, paths: Paths = None, repair: Repair = False, features: Features = None) -> None:
    """Read feature files whole and compare every row with its checksum; the status is 1 when something is damaged.

    Example: tlcache verify --repair
    """
    from tlcache.inventory.checks import verify as run
    from tlcache.report.kept import checks_lines

    with stoppable("run the same command to continue"):
        checks = run(paths, features, repair=repair)
    output.write({"files": [check.as_json() for check in checks]})
    for line in dict.fromkeys(line for check in checks for line in check.warnings):
        warn(line)
    for line in checks_lines(checks):
        output.say(line)
    if not all(check.sound for check in checks):
        raise typer.Exit(1)


@command(app, panel=PANEL)
def prune(
    output: Output,
    yes: Yes = False,
    features: Features = None,
) -> None:
    """Remove unfinished and unusable files, then what is only kept to be faster: pixels, activations, and the like.

    Each is listed and asked for on its own.

    Example: tlcache prune --yes
    """
    from tlcache.inventory.leftovers import empty_stores, find_leftovers, find_stores, remove_leftovers
    from tlcache.report.kept import leftovers_table

    found, stores = find_leftovers(features), find_stores(features)
    both = {"leftovers": found, "stores": stores}
    output.write({name: [each.as_json() for each in some] for name, some in both.items()})
    if not found and not stores:
        output.say("Nothing to remove.")
    steps = (
        (found, "Remove these?", remove_leftovers),
        (stores, "Empty these, which are made again when needed?", empty_stores),
    )
    for some, question, act in steps:
        if not some:
            continue
        output.show(leftovers_table(some))
        if yes or output.confirm(question):
            act(some)
            output.say(f"Removed {len(some)}.")
        else:
            output.say("Nothing was removed.")


@command(app, parameters(_dump), panel=PANEL)
def dump(output: Output, /, **options: Any) -> None:
    """Write the embeddings of a feature file, and all that is known of its rows, for other programs.

    Example: tlcache dump features/photos/mobilenetv2-ce7c131cda64.h5 --to photos.parquet
    """
    from tlcache.exchange.dump import dump as run

    written = run(**options)
    output.write({"file": str(written)})
    output.say(written)


@command(app, parameters(_adopt), panel=PANEL)
def adopt(output: Output, /, **options: Any) -> None:
    """Turn embeddings that were made elsewhere into a feature file: fit-heads, audit, suggest, compare work on it.

    What needs the images or the network, such as fine-tuning or predictions for new images, does not.

    Example: tlcache adopt embeddings.parquet --name uni --data slides.csv
    """
    from tlcache.exchange.adopt import adopt as run

    found = run(**options)
    output.write(found.as_json())
    for line in found.warnings:
        warn(line)
    output.say(f"{found.path}: {found.rows:,} embeddings of {found.dim:,} features, marked as given")


@command(app, parameters(_track), panel=PANEL)
def track(output: Output, /, **options: Any) -> None:
    """Add recorded runs to MLflow, TensorBoard or Weights & Biases; what is there already is left alone.

    Example: tlcache track --to mlflow --place sqlite:///mlflow.db
    """
    from tlcache.tracking.track import track as run

    problems = Problems()
    done = run(**options, on_warning=problems)
    output.write({"runs": [each.as_json() for each in done]})
    states = [each.state for each in done]
    output.say(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    fail_after(problems)
