"""The figures as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import filesize
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.peers import ABOUT

__all__ = ["extraction", "finetuning", "growth", "heading", "heads", "large_photos", "networks"]

Figures = Mapping[str, Any]


def heading(figures: Figures) -> str:
    """Return what was measured, where, and how to read it."""
    hardware = figures["hardware"]
    return (
        f"{hardware['cpu']}, {hardware['cpus']} CPUs, {figures['device']}; {figures['images']}; random weights.\n"
        "Medians of rounds in which all took turns; ratios are formed round by round. "
        "'~' marks rounds that differ by more than 10 %; a ratio whose rounds differ by more than 15 % is not told, "
        "only from where to where they went."
    )


def extraction(rows: Sequence[Figures]) -> RenderableType:
    """Return the ceiling, the whole, and the peers of every backbone."""
    ceiling = _table("Images per second against the ceiling", "Backbone", "Engine")
    for name in ("Decode", "Network", "Bound", "extract", "of bound"):
        ceiling.add_column(name, justify="right")
    for row in rows:
        for engine in row["engines"]:
            rates = (engine["decode"], engine["network"], engine["bound"], engine["extract"])
            name = f"{engine['engine']} {engine['precision']}"
            ceiling.add_row(row["backbone"], name, *map(_rate, rates), _ratio(engine["of_bound"]))
    note = Text("Bound: 1 / (1 / decode + 1 / network), each alone on all cores.\n", style="dim")
    return Group(ceiling, note, *(_peers(row) for row in rows if row["peers"]))


def _peers(row: Figures) -> RenderableType:
    engines = [f"{engine['engine']} {engine['precision']}" for engine in row["engines"]]
    table = _table(f"{row['backbone']}: extract against a DataLoader with", "Network")
    for name in ("Workers", "Threads", "Images/s", *(engine.replace(" ", "\n") for engine in engines)):
        table.add_column(name, justify="right")
    for peer in row["peers"]:
        setting = (f"{peer['workers']}", f"{peer['threads']}")
        ratios = [f"{_ratio(row['ratios'][engine + ' / ' + peer['variant']])} x" for engine in engines]
        table.add_row(ABOUT[peer["variant"]], *setting, _rate(peer), *ratios)
    return Group(table, Text())


def networks(rows: Sequence[Figures]) -> RenderableType:
    """Return how fast every network runs, without decoding."""
    if not rows:
        return Text()
    engines = list(rows[0]["network_images_per_s"])
    table = _table("Every network alone on all cores, images per second (one short measurement)", "Backbone")
    for engine in engines:
        table.add_column(engine, justify="right")
    for row in rows:
        rates = row["network_images_per_s"]
        table.add_row(
            row["backbone"], *(f"{rates[engine]:,.{0 if rates[engine] >= 100 else 1}f}" for engine in engines)
        )
    return Group(table, Text())


def large_photos(row: Figures) -> RenderableType:
    """Return what decoding large JPEGs at a reduced size saves."""
    table = _table(f"12-megapixel JPEGs, decode + {row['backbone']}, images per second")
    for name in ("At reduced size", "At full size", "Ratio"):
        table.add_column(name, justify="right")
    table.add_row(_rate(row["reduced"]), _rate(row["full"]), f"{_ratio(row['speedup'])} x")
    return Group(table, Text())


def growth(rows: Sequence[Figures], large: Figures) -> RenderableType:
    """Return what the cache alone costs as it grows."""
    table = _table("The cache alone (8 x 8 pixels, 8 numbers), start of the process included")
    for name in ("Images", "s per 1,000, first", "again", "Peak memory, first", "again", "File"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            f"{row['rows']:,}",
            f"{row['first_s_per_1000']:.2f}",
            f"{row['again_s_per_1000']:.2f}",
            _size(row["first_peak_rss_bytes"]),
            _size(row["again_peak_rss_bytes"]),
            _size(row["file_bytes"]),
        )
    opened = (
        f"{large['rows']:,} x {large['dim']} ({_size(large['file_bytes'])}): opened in {large['open_s'] * 1e3:.0f} ms; "
        f"its {large['test_rows']:,} test rows read and checked in {large['test_split_s']:.1f} s, "
        f"for which {_size(large['test_split_read_bytes'])} were read.\n"
    )
    return Group(table, Text(opened))


def heads(rows: Sequence[Figures], cache: Figures) -> RenderableType:
    """Return the seconds of every head, and what the cache saves."""
    table = _table(f"Fitting heads on {cache['images']:,} embeddings of {cache['backbone']}, search included", "Head")
    for name in ("Seconds", "Fastest", "Slowest"):
        table.add_column(name, justify="right")
    for row in rows:
        figures = (f"{row[name]:.2f}" for name in ("fit_s", "fit_s_low", "fit_s_high"))
        table.add_row(row["head"], *figures, "~" if row["noisy"] else "")
    ratio = cache["cold_s"] / cache["warm_s"]
    saved = (
        f"All heads, cold (extract + fit): {cache['cold_s']:.1f} s; warm (fit): {cache['warm_s']:.1f} s; {ratio:.2f} x"
    )
    return Group(table, Text(saved))


def finetuning(figures: Figures) -> RenderableType:
    """Return how fast the whole network is trained, and what a cached prefix saves."""
    title = f"Training {figures['backbone']} whole, batches of {figures['batch_size']}, images per second"
    table = _table(title, "What")
    table.add_column("Images/s", justify="right")
    rows = {**figures["ways"], "a bare step of the optimizer": figures["bare"], "finetune": figures["loop"]}
    for name, each in rows.items():
        table.add_row(name, _rate(each))
    plain, cached = (_rate(figures["prefix"][kind]) for kind in ("plain", "cached"))
    note = (
        f"finetune reaches {_ratio(figures['of_bare'])} of the bare step. --unfreeze {figures['unfreeze']} without "
        f"augmentation: {plain} images/s; once the activations are there, --cached-prefix: {cached}, "
        f"{_ratio(figures['prefix_speedup'])} times as many."
    )
    return Group(table, Text(note))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name)
    return table


def _rate(rates: Figures) -> str:
    value = rates["images_per_s"]
    return (
        f"{'~' if rates['noisy'] else ''}{value:,.0f}"
        if value >= 100
        else f"{'~' if rates['noisy'] else ''}{value:.1f}"
    )


def _ratio(ratio: Figures) -> str:
    if ratio["ratio"] is None:
        return f"({ratio['ratio_low']:.2f} to {ratio['ratio_high']:.2f})"
    return f"{'~' if ratio['noisy'] else ''}{ratio['ratio']:.2f}"


def _size(count: int) -> str:
    return str(filesize.decimal(count))
