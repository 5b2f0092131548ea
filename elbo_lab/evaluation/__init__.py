"""Evaluation of a method over a whole split, with every example's value kept."""

from elbo_lab.evaluation.active_units import ACTIVE_THRESHOLD, activity
from elbo_lab.evaluation.evaluator import Evaluation, Evaluator, evaluate, make_evaluator
from elbo_lab.evaluation.quantities import QUANTITIES, Quantity
from elbo_lab.evaluation.storage import read_evaluations, write_evaluations

__all__ = [
    "ACTIVE_THRESHOLD",
    "QUANTITIES",
    "Evaluation",
    "Evaluator",
    "Quantity",
    "activity",
    "evaluate",
    "make_evaluator",
    "read_evaluations",
    "write_evaluations",
]
