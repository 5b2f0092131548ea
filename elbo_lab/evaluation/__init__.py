"""Trustworthy numbers over a whole split, with every example's value kept."""

from elbo_lab.evaluation.active_units import ACTIVE_THRESHOLD, activity, layer_means
from elbo_lab.evaluation.importance import Evaluation, evaluate, make_evaluator
from elbo_lab.evaluation.storage import read_evaluations, write_evaluations

__all__ = [
    "ACTIVE_THRESHOLD",
    "Evaluation",
    "activity",
    "evaluate",
    "layer_means",
    "make_evaluator",
    "read_evaluations",
    "write_evaluations",
]
