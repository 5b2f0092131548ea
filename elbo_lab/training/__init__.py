"""The training loop, its step, and the files that a run writes while it trains.

The names below are imported from their modules at first use, so that `elbo_lab.training.metrics`,
which only reads and writes text, can be imported without JAX.
"""

import importlib
from typing import Any

_MODULE_OF = {
    "Failure": "step",
    "Loop": "loop",
    "Record": "loop",
    "TrainState": "step",
    "base_keys": "loop",
    "failed_terms": "step",
    "fit": "loop",
    "make_loop": "loop",
    "replicas": "loop",
    "steps_per_call": "lengths",
    "steps_per_epoch": "lengths",
    "total_steps": "lengths",
}

__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
