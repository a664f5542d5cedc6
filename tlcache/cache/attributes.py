"""What a feature file says in those of its attributes that are JSON, with texts as this process has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tlcache.keys import native

__all__ = ["extract_arguments", "identity_of"]


def extract_arguments(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the extraction that a feature file, given by its attributes, was made with."""
    return dict(native(json.loads(attrs["arguments"])))


def identity_of(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decided the embeddings of a feature file: the hash of that is its key."""
    return dict(native(json.loads(attrs["key_json"])))
