"""Find out which pretrained backbone and which head suit a dataset, and whether fine-tuning is worth it.

tlcache runs each backbone once over a dataset, keeps the embeddings in an HDF5 file, and fits every head on them in
seconds. The command line and this module offer the same:

- what there is: `list_models`, `list_layers`, `list_heads`, `list_datasets`;
- embeddings: `extract` images to a feature file, `extract_layers` to one for each layer, `merge` what several processes
  extracted, `open_features` to read one, `ImageEmbedder` for scikit-learn;
- embeddings elsewhere: `dump` writes them for other programs, `adopt` takes what others have made;
- models: `fit_heads` on embeddings, `load_head` to use one, `fit_curves` to see how many labelled images they need,
  `fit_columns` to see what other columns of their table tell, `finetune` to train the network
  itself, `export` to write a network as an ONNX file;
- runs: `list_runs` and `remove_runs`, `predict` what one of them says of new images, and `unknown`, which
  measures how well it tells what it does not know;
- images that are made worse: what runs reach on them, `robust`;
- labels: `suggest` which images of many to label next;
- pictures: the `similar` images of a dataset, `write_map` of all of them as a page, and `explain`, which places of an
  image speak for an answer;
- answers: `compare` what is recorded, `verdict` of that in sentences, `audit` whether the split is honest,
  `leakage_gaps` what it costs when it is not and `write_clean` the dataset without, `write_report` as a page;
- all of it: `study` for the whole experiment and `compare_study` for its answer, `run_demo` for a first look;
- what was exported, without the rest: `load_model`;
- the cache: `list_cache`, `verify`, `find_leftovers` and `remove_leftovers`, `find_stores` and `empty_stores`;
- this machine: `run_doctor`, what is found and works here, `engines`, how fast each runs a network and what it costs;
- elsewhere: `track` adds runs to MLflow, TensorBoard or Weights & Biases;
- what goes on: `show_progress` in a script, where all of this is quiet otherwise, and `hide_progress`.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from typing import Any

from tlcache.threads import set_waiting
from tlcache.version import __version__ as __version__

# ONNX Runtime reads this when it is first imported, in this process or a worker; a value that is set already stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # likewise, where timm's weights are downloaded
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # likewise, of a cluster that `--ray local` starts
# The import of OpenVINO sends an event wherever this optional package is found, and no variable says not to.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
set_waiting()


@functools.cache
def _homes() -> dict[str, str]:
    """Return the module of each public name, as `__init__.pyi` lists them."""
    import ast
    from pathlib import Path

    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text("utf-8"))
    imports = (line for line in stub.body if isinstance(line, ast.ImportFrom) and line.module)
    return {name.name: str(line.module) for line in imports for name in line.names}


def __getattr__(name: str) -> Any:
    """Import what is used when it is used: `import tlcache` costs nothing."""
    if name == "__all__":
        return sorted(_homes())
    if name not in _homes():
        raise AttributeError(f"module 'tlcache' has no attribute '{name}'")
    return getattr(importlib.import_module(_homes()[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_homes()})
