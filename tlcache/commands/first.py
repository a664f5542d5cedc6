"""A first look, and what works on this machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tlcache.arguments import DATA, Features, Runs
from tlcache.commands.base import app, stoppable
from tlcache.flags import Output, command
from tlcache.kinds import text
from tlcache.options import Option, parameters
from tlcache.probing.engines import engines as _engines

__all__ = ["demo", "doctor", "engines", "help_with"]

PANEL = "First look"


@command(app, panel=PANEL)
def demo(output: Output, features: Features = None, runs: Runs = None) -> None:
    """Do the whole job on scikit-learn's digits: extract, fit all heads, fine-tune, one table.

    Takes the MobileNetV3s whose ImageNet weights are here, otherwise the small network that is part of tlcache.

    Example: tlcache demo
    """
    from tlcache.demo import next_step, run_demo

    with stoppable("run the same command to continue"):
        found = run_demo(features, runs, output.show)
    output.write({"datasets": [one.as_json() for one in found]})
    output.say(next_step(found[0]))


@command(app, panel=PANEL)
def doctor(output: Output, features: Features = None, runs: Runs = None) -> None:
    """Say what tlcache finds here: versions, processor, engines, GPU, folders, locks; and try it on a few made images.

    The status is 1 where there is a problem. The output belongs into a report of a fault.

    Example: tlcache doctor
    """
    from tlcache.doctor import findings_table, run_doctor

    found = run_doctor(features, runs)
    output.write({"findings": [each.as_json() for each in found]})
    output.show(findings_table(found))
    if any(each.state == "problem" for each in found):
        raise typer.Exit(1)


@command(app, parameters(_engines), panel=PANEL)
def engines(output: Output, **options: Any) -> None:
    """Time the engines and precisions that are here on a network, and say what each costs in accuracy.

    Exact are those in fp32, of which extract --engine auto takes the fastest. Others have embeddings of their own; with
    --data it is told how far these are from the exact ones, and what that changes for a head, cross-validated.

    Example: tlcache engines --model mobilenetv2 --data photos
    """
    from tlcache.probing.engines import engines as run
    from tlcache.report.engines import engines_table

    with stoppable("nothing of it is kept"):
        found = run(**options)
    output.write({"engines": [each.as_json() for each in found]})
    output.show(engines_table(found))


@command(app, name="help", panel=PANEL)
def help_with(
    output: Output,
    topic: Annotated[
        str | None, Option("A page, a command, or a word; all pages are listed without", text("TOPIC"), DATA, "TOPIC")
    ] = None,
) -> None:
    """Read the manual: a page of it, what it says of a command, or what a word means.

    Example: tlcache help audit
    """
    from rich.markdown import Markdown

    from tlcache.manual import find_topic, list_topics
    from tlcache.report.plain import plain_table

    if topic is None:
        topics, table = list_topics(), plain_table("Page", "About")
        for each in topics.items():
            table.add_row(*each)
        output.write({"topics": topics})
        output.show(table)
        return
    found = find_topic(topic)
    output.write({"topic": topic, "text": found})
    output.show(Markdown(found, hyperlinks=False))
