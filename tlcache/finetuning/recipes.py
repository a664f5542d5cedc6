"""Recipes by name: what a race tries, and what `--recipe` takes; a row is what differs from the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["INSTEAD", "NAMES", "OWN", "RACE", "RACED", "RECIPES"]

OWN, RACE = "own", "race"
RACED = ("top", "upper", "bare", "steady", "bold", "adapt")
INSTEAD = {"bare": "plain"}  # where a network has no more stages than a recipe trains; others have their like then

RECIPES: Mapping[str, Mapping[str, Any]] = {
    OWN: {},
    "top": {"unfreeze": "top:1", "lr": 1e-3, "cached_prefix": True, "views": 4},
    "upper": {"unfreeze": "top:2", "lr": 1e-3, "cached_prefix": True, "views": 4},
    "bare": {"unfreeze": "top:2", "lr": 1e-3, "cached_prefix": True, "augment": "none"},
    "plain": {"lr": 1e-3, "augment": "none"},
    "steady": {},
    "bold": {"lr": 1e-3},
    "adapt": {"lr": 1e-3, "batch_norm": "adapt"},
    "before": {
        "layer_decay": 1.0,
        "label_smoothing": 0.0,
        "clip": 0.0,
        "batch_norm": "train",
        "ema": 0.0,
        "refit": False,
    },
}
NAMES = (RACE, *RECIPES)  # that `--recipe` takes: `race` is whichever of `RACED` does best on validation
