"""`python -m benchmarks.architectures [NAME ...]`: whether timm's networks leave the export as timm runs them.

Without names it takes the smallest network of each of timm's families, up to a size. Weights are random, with no vector
near zero, as parity of a network whose blocks are switched off says nothing. What is exported is compared with timm's
own module, which shares nothing with it, in batches of 1 and 3; and the embedding of a photograph with what timm's
transform and module make of the file. Each network is a line of JSON, and nothing is downloaded.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from timm.models._registry import _module_to_models
from torch import Tensor, nn

from benchmarks.images import make_photos
from exporters.export import export
from tlcache.backbones.backbone import Backbone, Weights
from tlcache.backbones.sources import find
from tlcache.errors import TlcacheError
from tlcache.images import prepare

_LARGEST, _WIDEST = 45e6, 600  # parameters, pixels


def main() -> None:
    """Measure networks, the smallest first."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.architectures", description=__doc__)
    parser.add_argument("names", nargs="*", help="of timm, without timm/")
    for name in parser.parse_args().names or families():
        print(json.dumps(measured(name)), flush=True)


def families() -> list[str]:
    """Return the smallest network of each of timm's families, the smallest of all first."""
    found = list[tuple[float, str]]()
    for names in _module_to_models.values():
        sizes = [(_parameters(name), name) for name in names if not name.startswith("test_") and _fits(name)]
        found += sorted(sizes)[:1]
    return [name for size, name in sorted(found) if size <= _LARGEST]


def _fits(name: str) -> bool:
    config = timm.get_pretrained_cfg(name)
    channels, height, width = config.input_size if config else (0, 0, 0)
    return channels == 3 and height == width <= _WIDEST


def _parameters(name: str) -> float:
    with torch.device("meta"):
        return float(sum(each.numel() for each in timm.create_model(name).parameters()))


def measured(name: str) -> dict[str, Any]:
    """Return what becomes of a network: its size, its parity, the cosine of an embedding, or why it is refused."""
    began, about = time.process_time(), dict[str, Any](name=name)
    try:
        row = find(f"timm/{name}")
        about |= {"dim": row.dim, "parameters": row.parameters, "side": row.preprocess().crop, **_compared(row)}
    except TlcacheError as error:
        about["refused"] = str(error)
    return about | {"cpu_s": round(time.process_time() - began, 1)}


def _compared(row: Backbone) -> dict[str, float]:
    own, preprocess = _filled(timm.create_model(row.builder)), row.preprocess()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.safetensors"
        save_file({name: each.contiguous().clone() for name, each in own.state_dict().items()}, path)
        data = export(row, Weights("file:w", path, ""), preprocess, row.pool())
    own.reset_classifier(0)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def ours(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = session.run(["embedding"], {"image": images})[0]
        return rows

    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (preprocess.mean, preprocess.std))
    differences = []
    for images in _made(preprocess.crop):
        expected = _run(own, (torch.from_numpy(images) / 255 - mean) / std)
        differences.append(np.abs(ours(images) - expected).max() / np.abs(expected).max())
    photo = next(iter(make_photos(1, 500, 667)))
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(row.builder).to_dict())
    theirs = _run(own, timm.data.create_transform(**config)(Image.open(io.BytesIO(photo)).convert("RGB"))[None])[0]
    mine = ours(prepare(photo, preprocess)[0][None])[0]
    cosine = float(theirs @ mine / np.linalg.norm(theirs) / np.linalg.norm(mine))
    return {"parity": float(max(differences)), "cosine": cosine, "megabytes": round(len(data) / 1e6, 1)}


def _made(side: int) -> Iterator[NDArray[np.uint8]]:
    for batch in (1, 3):
        yield np.random.default_rng(batch).integers(0, 256, (batch, 3, side, side), np.uint8)


def _run(module: nn.Module, images: Tensor) -> NDArray[np.float32]:
    with torch.inference_mode():
        rows: NDArray[np.float32] = module(images).numpy()
    return rows


def _filled(module: Any) -> Any:
    """Give every vector some value: scales of layers that begin at nothing switch these off."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for each in [*module.parameters(), *module.buffers()]:
            if each.is_floating_point() and each.ndim == 1:
                each += 0.1 * torch.rand(each.shape, generator=random)
    return module.eval()


if __name__ == "__main__":
    main()
