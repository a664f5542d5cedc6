"""Find out which pretrained backbone and which head suit a dataset, and whether fine-tuning is worth it.

tlcache runs each backbone once over a dataset, keeps the embeddings in an HDF5 file, and fits every head on them in
seconds. The command line and this module offer the same:

`extract` images to a feature file, `open_features` to read one, `fit_heads` to fit and test heads on it, `fit_curves`
to see how many labelled images they need, `finetune` to train the network itself, `compare` to compare what is
recorded, `audit` to find out whether the split is honest, `study` to do the whole experiment. `ImageEmbedder` is a
transformer for scikit-learn's pipelines. All are quiet: `show_progress` shows bars and messages in a script.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tlcache.version import __version__

if TYPE_CHECKING:
    from tlcache.auditing.run import audit
    from tlcache.cache.feature_file import open_features
    from tlcache.evaluation.compare import compare
    from tlcache.extraction.embedder import ImageEmbedder
    from tlcache.extraction.extract import extract
    from tlcache.finetuning.run import finetune
    from tlcache.heads.fitted import load_head
    from tlcache.probing.run import fit_heads
    from tlcache.probing.shots import fit_curves
    from tlcache.progress import show_progress
    from tlcache.studying.run import study

__all__ = [
    "ImageEmbedder",
    "__version__",
    "audit",
    "compare",
    "extract",
    "finetune",
    "fit_curves",
    "fit_heads",
    "load_head",
    "open_features",
    "show_progress",
    "study",
]

_HOMES = {
    "ImageEmbedder": "tlcache.extraction.embedder",
    "audit": "tlcache.auditing.run",
    "compare": "tlcache.evaluation.compare",
    "extract": "tlcache.extraction.extract",
    "finetune": "tlcache.finetuning.run",
    "fit_curves": "tlcache.probing.shots",
    "fit_heads": "tlcache.probing.run",
    "load_head": "tlcache.heads.fitted",
    "open_features": "tlcache.cache.feature_file",
    "show_progress": "tlcache.progress",
    "study": "tlcache.studying.run",
}


def __getattr__(name: str) -> Any:
    """Import what is used when it is used: `import tlcache` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tlcache' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
