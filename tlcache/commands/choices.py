"""What there is to choose from: backbones, their layers, heads, forms of data."""

from __future__ import annotations

from typing import Annotated

from tlcache.arguments import DATA, Crop, Model
from tlcache.commands.base import PATTERN, app
from tlcache.errors import OptionError, UnknownNameError
from tlcache.flags import Output, command
from tlcache.options import Option

__all__ = ["datasets", "heads", "layers", "models"]

PANEL = "What there is to choose from"


@command(app, panel=PANEL)
def models(
    output: Output,
    pattern: Annotated[str | None, Option("Shell pattern of names, study or modern", PATTERN, DATA, "PATTERN")] = None,
    timm: Annotated[
        str | None, Option("Shell pattern of names of timm, which are listed instead", PATTERN, DATA)
    ] = None,
) -> None:
    """List the backbones, or those of a group: embedding size, parameters, input, accuracy, licence, weights at hand.

    Example: tlcache models "resnet*"
    """
    from tlcache.backbones.sources import list_models
    from tlcache.report.choices import models_table

    if pattern and timm:
        raise OptionError(f"'{pattern}' and --timm '{timm}' are of two lists. Give one of them.")
    asked = pattern if timm is None else f"timm/{timm}"
    found = list_models(asked)
    if not found:
        raise UnknownNameError(f"No backbone is called '{asked}'. Patterns are as in 'resnet*', or --timm 'vit*'.")
    output.write({"models": [row.as_json() for row in found]})
    output.show(models_table(found))


@command(app, panel=PANEL)
def layers(output: Output, model: Model, crop: Crop = None) -> None:
    """List the layers of a network that --layers takes: what leaves them, and how long embeddings are by pooling.

    Example: tlcache layers --model resnet50
    """
    from tlcache.backbones.sources import list_layers
    from tlcache.report.layers import layers_table

    found = list_layers(model, crop)
    output.write({"layers": [each.as_json() for each in found]})
    output.show(layers_table(found))


@command(app, panel=PANEL)
def heads(output: Output) -> None:
    """List the heads and the settings that each chooses from.

    Example: tlcache heads
    """
    from tlcache.heads.table import list_heads
    from tlcache.records import as_json
    from tlcache.report.choices import heads_table

    found = list_heads()
    output.write({"heads": as_json(found)})
    output.show(heads_table(found))


@command(app, panel=PANEL)
def datasets(output: Output) -> None:
    """Explain the forms of --data, with an example each.

    Example: tlcache datasets
    """
    from tlcache.datasets.dataset import list_datasets
    from tlcache.records import as_json
    from tlcache.report.choices import datasets_table

    found = list_datasets()
    output.write({"datasets": as_json(found)})
    output.show(datasets_table(found))
