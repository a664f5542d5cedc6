"""The optimizers: one frozen row each, for heads and for fine-tuning alike; torch is imported when one is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tlcache.errors import UnknownNameError, closest

__all__ = ["OPTIMIZERS", "Optimizer", "find_optimizer"]


@dataclass(frozen=True)
class Optimizer:
    """One of torch's optimizers.

    Fine-tuning uses the class. Heads use the function behind it, as the class takes more than a second to import what
    compiles it.

    Parameters
    ----------
    name
        As in `--optimizer`; also that of the function, `torch.optim.NAME.NAME`.
    class_name
        Of the class in `torch.optim`.
    settings
        What the class is given beside learning rate and weight decay.
    keeps
        What the function takes of what is kept of a network, in its order: the `first` and `second` moment of its
        numbers, `steps` and `product`; "" is a list that stays empty.
    learning_rate
        Of a backbone in fine-tuning, where nothing else is said.
    """

    name: str
    class_name: str
    settings: Mapping[str, Any]
    keeps: tuple[str, ...]
    learning_rate: float

    def type(self) -> Any:
        """Import and return the class."""
        return getattr(importlib.import_module("torch.optim"), self.class_name)

    def function(self) -> Any:
        """Import and return the function."""
        return getattr(importlib.import_module(f"torch.optim.{self.name}"), self.name)

    def function_settings(self) -> dict[str, Any]:
        """Return the settings as the function takes them."""
        beta1, beta2 = self.settings.get("betas", (None, None))
        betas = {} if beta1 is None else {"beta1": beta1, "beta2": beta2}
        return {**{name: value for name, value in self.settings.items() if name != "betas"}, **betas}


_SGD = {"momentum": 0.9, "dampening": 0.0, "nesterov": False, "maximize": False, "fused": True}
_BETAS = {"betas": (0.9, 0.999), "eps": 1e-8}
_ADAM = {**_BETAS, "amsgrad": False, "maximize": False, "fused": True}
_RMSPROP = {"alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "centered": False}
_MOMENTS = ("first", "second")
_ROWS = (
    Optimizer("sgd", "SGD", _SGD, ("first",), 1e-2),
    Optimizer("rmsprop", "RMSprop", _RMSPROP, ("second", "", "", "steps"), 1e-4),
    Optimizer("adam", "Adam", _ADAM, (*_MOMENTS, "", "steps"), 3e-4),
    Optimizer("nadam", "NAdam", {**_BETAS, "momentum_decay": 4e-3}, (*_MOMENTS, "product", "steps"), 3e-4),
    Optimizer("adamw", "AdamW", _ADAM, (*_MOMENTS, "", "steps"), 3e-4),
)

OPTIMIZERS: Mapping[str, Optimizer] = {row.name: row for row in _ROWS}


def find_optimizer(name: str) -> Optimizer:
    """Return the row called `name`.

    Raises
    ------
    UnknownNameError
        No such optimizer; the message names the nearest one and all that exist.
    """
    if name not in OPTIMIZERS:
        raise UnknownNameError(closest("optimizer", name, OPTIMIZERS))
    return OPTIMIZERS[name]
