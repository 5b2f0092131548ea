"""The training loop, its step, and what a run writes while it trains."""

from elbo_lab.training.loop import (
    Loop,
    Record,
    base_keys,
    fit,
    make_loop,
    replicas,
    steps_per_call,
    steps_per_epoch,
    total_steps,
)
from elbo_lab.training.step import Failure, TrainState, failed_terms

__all__ = [
    "Failure",
    "Loop",
    "Record",
    "TrainState",
    "base_keys",
    "failed_terms",
    "fit",
    "make_loop",
    "replicas",
    "steps_per_call",
    "steps_per_epoch",
    "total_steps",
]
