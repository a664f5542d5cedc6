"""Checkpoints as people have them -> the state dict of a network: containers opened, names matched."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlcache.backbones.backbone import TorchNetwork
from tlcache.errors import WeightsError, first_line
from tlcache.keys import few, some

__all__ = ["match_names", "quantised", "read_tensors"]

# Beside tensors and plain values: what trainings write into checkpoints, and what runs nothing when it is made again.
_NUMBERS = "?bBhHiIlLqQefd"
_SCALAR, _ARRAY = (value.__reduce__()[0] for value in (np.float64(0), np.zeros(0)))
_HARMLESS: list[Any] = [
    argparse.Namespace,
    *(defaultdict, dict, list, int),
    np.ndarray,
    np.dtype,
    *{type(np.dtype(kind)) for kind in _NUMBERS + "SU"},
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    (PurePosixPath, "pathlib.PosixPath"),
    (PureWindowsPath, "pathlib.WindowsPath"),
]
_BEGINNINGS = {
    b"version https://git-lfs": "a Git LFS pointer and not the file that it stands for. Fetch that with: git lfs pull",
    b"<": "a web page or XML, as a download that asked for something leaves. Download it again, and look at it",
    b"\x89HDF": "an HDF5 file, as Keras writes. Convert it, and save the tensors as .safetensors",
    b"\x93NUMPY": "a NumPy array. Save the tensors by their names, as .safetensors",
    b"{": "JSON. If it is the index of a checkpoint in parts, put the tensors of these into one dict, and save that",
}
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}  # DataParallel, compile, FSDP
_COUNTED = ("total_ops", "total_params")  # by a profiler, in every layer
_AVERAGED = re.compile(r"(^|[._])ema([._]|$)")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by their names; those in nested dicts have the keys of these before theirs.

    Files are those of `torch.save`, of tensors or NumPy arrays, and safetensors. Code inside is never run.

    Raises
    ------
    WeightsError
        No such file; the message says what it is, where that can be told.
    """
    from safetensors.torch import load

    try:
        if _is_safetensors(path):
            return load(path.read_bytes())
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"'{path}' is not a plain PyTorch state dict: {_told(path, error)}.") from None
    state = dict(_tensors(content))
    if not state:
        raise WeightsError(
            f"'{path}' holds no tensors by their names, but {_described(content)}. "
            "Save them with torch.save(model.state_dict(), path)."
        )
    return state


def _described(content: Any) -> str:
    kind = type(content).__name__
    if isinstance(content, Mapping):
        return f"a {kind} of {some([f'{name} ({type(each).__name__})' for name, each in content.items()]) or 'nothing'}"
    if isinstance(content, list | tuple):
        return f"a {kind} of {some([type(each).__name__ for each in content]) or 'nothing'}"
    return f"a {kind}"


def _is_safetensors(path: Path) -> bool:
    """Return whether a file begins with a length and JSON, as no file of `torch.save` does, whatever it is called."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _tensors(content: Any, before: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, Tensor):
            yield f"{before}{name}", value.detach()
        elif isinstance(value, np.ndarray) and value.dtype.char in _NUMBERS:
            yield f"{before}{name}", torch.from_numpy(np.ascontiguousarray(value, value.dtype.newbyteorder("=")))
        yield from _tensors(value, f"{before}{name}.")


def _told(path: Path, error: Exception) -> str:
    """Return what a file is that torch does not read, and what to do."""
    with path.open("rb") as file:
        beginning = file.read(32).lstrip()
    for known, what in _BEGINNINGS.items():
        if beginning.startswith(known):
            return f"it is {what}"
    save = "Save one with torch.save(model.state_dict(), path), or as .safetensors"
    if "TorchScript" in str(error):
        return f"it is a TorchScript program. {save}, model being torch.jit.load(path)"
    if objects := re.findall(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"it holds Python objects ({some(objects)}), which may run anything when they are loaded; tlcache does not "
            f"load them. Where you trust the file, load it yourself. {save}"
        )
    if not beginning:
        return f"it is empty. {save}"
    if (inside := _archived(path)) and not any(name.endswith("data.pkl") for name in inside):
        return f"it is a zip archive of {some(inside)}. {save}"
    if beginning.startswith(b"PK"):
        return f"it is an archive that is cut off or damaged. Copy it again. {save}"
    if isinstance(error, pickle.UnpicklingError):  # torch's words for it tell people to run whatever is in it
        return f"it is not of torch.save, but perhaps a pickle, which tlcache does not load. {save}"
    return f"{type(error).__name__}, {first_line(error)}. {save}"


def _archived(path: Path) -> list[str]:
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return archive.namelist()
    return []


def match_names(state: Mapping[str, Tensor], network: TorchNetwork) -> tuple[dict[str, Tensor], str]:
    """Return a checkpoint's tensors as a state dict of `network`, and in words what is not as it would save them.

    What wraps a network is taken from the names; it may lie in a dict or below an attribute, among other things. Where
    there are several, the one whose place is called `ema`, a moving average, is taken. A classifier that the embedding
    does not need may be missing or any other: it is replaced by zeros.

    Parameters
    ----------
    state
        As `read_tensors` returns it.
    network
        On the meta device.

    Raises
    ------
    LookupError
        There is no such network in it, more than it has, or several such networks; the message says what.
    """
    own, free = network.module.state_dict(), _free(network)
    needed = [name for name in own if not name.startswith(free) and not name.endswith("num_batches_tracked")]
    names = {_unwrapped(name): name for name in state if not name.endswith(_COUNTED)}
    place = _place(names, state, needed)
    inside = {name.removeprefix(place): state[names[name]] for name in names if name.startswith(place)}
    other = [name for name in inside if name not in own]
    parts = tuple(name.partition(".")[0] + "." for name in needed)
    if foreign := [name for name in other if name.startswith(parts) and not name.startswith(free)]:
        raise LookupError(f"there is more than that network has: {_listed(foreign, inside)}")
    first, classifier = names[place + needed[0]], [name for name in own if name.startswith(free)]
    notes = [f"'{first}' is its '{needed[0]}'"] if first != needed[0] else []
    if not all(name in inside and inside[name].shape[1:] == own[name].shape[1:] for name in classifier):
        other += [name for name in classifier if name in inside]
        inside = {name: each for name, each in inside.items() if not name.startswith(free)}
        notes.append("its classifier is not there")
    if other:
        notes.append(f"not used: {some(other)}")
    empty = {name: torch.zeros(each.shape, dtype=each.dtype, device="cpu") for name, each in own.items()}
    return {name: inside.get(name, empty[name]) for name in own}, "; ".join(notes)


def quantised(state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of weights that are integers with a scale; no floating-point network can be made of these."""
    return [
        name
        for name, each in state.items()
        if name.endswith("zero_point")
        or (name.endswith("weight") and each.itemsize == 1 and not each.is_floating_point())
    ]


def _listed(names: Sequence[str], state: Mapping[str, Tensor]) -> str:
    return few([f"{name} {tuple(state[name].shape)}" for name in names])


def _free(network: TorchNetwork) -> tuple[str, ...]:
    """Return what the names of parameters begin with that an embedding is not made of: the classifier's."""
    used = [name for layer in network.layers() for name in layer.parameters]
    found = set[str]()
    for name, _ in network.module.named_parameters():
        parts = name.split(".")
        above = [".".join(parts[:count]) + "." for count in range(1, len(parts))]
        found |= set([each for each in above if not any(one.startswith(each) for one in used)][:1])
    return tuple(found)


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _place(names: Mapping[str, str], state: Mapping[str, Tensor], needed: list[str]) -> str:
    """Return what stands before the names of the network in the names of a checkpoint."""
    wanted, counts = set(needed), Counter[str]()
    for name in names:
        parts = name.split(".")
        for start in range(len(parts)):
            counts[".".join(parts[:start]) + "." * (start > 0)] += ".".join(parts[start:]) in wanted
    most = max(counts, key=lambda place: counts[place], default="")
    whole = [place for place, count in counts.items() if count == len(wanted)]
    if not whole:
        lacking = [name for name in needed if most + name not in names]
        raise LookupError(
            f"{len(lacking)} of {len(needed)} tensors are missing: {some(lacking)}; "
            f"there are {_listed(list(state), state)}"
        )
    averaged = [place for place in whole if _AVERAGED.search(place)]
    chosen = averaged if len(averaged) == 1 else whole
    if len(chosen) > 1:
        begin = [f"'{names[place + needed[0]]}'" for place in chosen]
        raise LookupError(
            f"there are several such networks, which begin with {some(begin)}. Save the tensors of the one that you "
            "mean in a file of their own, with torch.save"
        )
    return chosen[0]
