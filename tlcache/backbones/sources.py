"""The table of sources, and a backbone by its name. Adding a source is one object in one file and one entry here."""

from __future__ import annotations

from contextlib import suppress

from tlcache.arguments import Crop
from tlcache.arguments import Model as ModelName
from tlcache.backbones.backbone import Backbone, Source
from tlcache.backbones.embedded.source import EMBEDDED
from tlcache.backbones.groups import GROUPS, ungrouped
from tlcache.backbones.onnx_file import ONNX_FILE
from tlcache.backbones.output import Output
from tlcache.backbones.timm_source import TIMM
from tlcache.backbones.torch_module import TORCH_MODULE
from tlcache.backbones.torchvision import TORCHVISION
from tlcache.errors import ModelError, UnknownNameError, WeightsError, closest
from tlcache.kinds import listed
from tlcache.options import described

__all__ = ["GIVEN", "SOURCES", "find", "find_trainable", "forms", "list_layers", "list_models", "lookup"]

SOURCES: tuple[Source, ...] = (
    TORCHVISION,
    EMBEDDED,
    TIMM,
    ONNX_FILE,
    TORCH_MODULE,
)  # the first that finds a name has it

GIVEN = "given:"  # what the name of a network begins with that is known by its embeddings alone


def list_models(pattern: str | None = None) -> list[Backbone]:
    """Return the backbones whose names match a shell pattern, or of a group; without one, those worth listing.

    Any image model in an ONNX file is a backbone too, by its path.

    Examples
    --------
    >>> [(row.name, row.dim, row.at_hand) for row in list_models("resnet2*")]
    [('resnet20_cifar', 128, ['embedded'])]
    """
    if pattern is not None and pattern in GROUPS:
        return [find(name) for name in GROUPS[pattern]]
    return [find(name) for source in SOURCES for name in source.names(pattern)]


@described()
def list_layers(model: ModelName, crop: Crop = None) -> list[Output]:
    """Return the layers of a network whose output can be the embedding (`--layers`), as images meet them.

    A function of the user's own is called for that; of other networks nothing is computed.

    Raises
    ------
    UnknownNameError, ModelError
        No such backbone, or no network that can be looked into.

    Examples
    --------
    >>> [(each.name, each.kind, list(each.pools)) for each in list_layers("resnet18")][-1]
    ('last', 'map 512x7x7', ['avg', 'max', 'gem', 'flatten'])
    """
    backbone = find(str(model))
    return backbone.source.layers(backbone, {} if crop is None else {"resize": crop, "crop": crop})


def forms() -> str:
    """Return how backbones without listed names are asked for, for people: "an ONNX file"."""
    *most, last = [source.form for source in SOURCES if source.form]
    return f"{', '.join(most)} or {last}" if most else last


def lookup(model: str) -> Backbone | None:
    """Return what `--model` names, or None where no source knows it, or its source cannot look at it here."""
    with suppress(UnknownNameError, ModelError, WeightsError):
        return _found(model)
    return None


def find(model: str) -> Backbone:
    """Return what `--model` names: in our spelling or the source's, or the path of a file.

    Raises
    ------
    UnknownNameError
        No such backbone, of which the message names the nearest one and all that are listed; or several.
    ModelError
        One that is known by its embeddings alone.

    Examples
    --------
    >>> find("mobilenet_v3_large").name
    'mobilenetv3_large'
    """
    if found := _found(model):
        return found
    if len(several := ungrouped(listed([model]))) > 1 and all(map(lookup, several)):
        raise UnknownNameError(
            f"One backbone is taken here; found '{model}', which is {len(several)}. Run the same command for each."
        )
    if beside := next((name for source in SOURCES if lookup(name := f"{source.name}/{model}")), ""):
        raise UnknownNameError(f"Unknown backbone '{model}'. Did you mean '{beside}'?")
    names = [name for source in SOURCES for name in source.names()]
    raise UnknownNameError(f"{closest('backbone', model, names)} Or give {forms()}.")


def _found(model: str) -> Backbone | None:
    if model.startswith(GIVEN):
        raise ModelError(
            f"'{model.removeprefix(GIVEN)}' made embeddings that were adopted. The network itself is not here: it can "
            "embed no images, nor be trained or exported. Embed them where these were made, and run tlcache adopt."
        )
    return next((found for source in SOURCES if (found := source.find(model))), None)


def find_trainable(model: str) -> Backbone:
    """Return what `--model` names as `find` does, when it can be trained.

    Raises
    ------
    UnknownNameError, ModelError
        No such backbone, or one that can only be run.
    """
    backbone = find(model)
    if not backbone.source.trainable:
        raise ModelError(
            f"'{model}' is {backbone.source.form}, which cannot be trained here. Give a name of: tlcache models"
        )
    return backbone
