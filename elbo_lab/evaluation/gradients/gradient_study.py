"""A study of gradient estimators: one objective at one point, by several estimators, K and M."""

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from elbo_lab import losses
from elbo_lab.evaluation.gradients import gradient_statistics
from elbo_lab.evaluation.gradients.gradient_statistics import LossFn
from elbo_lab.losses import catalogue, estimators
from elbo_lab.models.base import NOTHING_GIVEN, Model

# Objectives that are functions of log-weights, of one target or of two.
OBJECTIVES = tuple(
    name
    for name, entry in losses.CATALOGUE.items()
    if entry.estimators and entry.kind in (catalogue.LOG_WEIGHTS, catalogue.TWO_TARGETS)
)
# Their inference network's gradient is not that of a bound.
BOUNDLESS = ("wake", "wake_dreg")
# Probability that a study finds any bias where there is none.
LEVEL = 0.01
# Uses of keys.
_DIRECTIONS, _ORACLE, _PILOT, _MAIN, _TIMING = range(5)
# What one round of timing takes for each estimator.
_TIMED_SECONDS = 0.05


class Subject(NamedTuple):
    """Where gradients are taken."""

    model: Model
    params: Any
    x: Array  # [B, D], the examples, float32
    groups: gradient_statistics.Groups
    inference: tuple[str, ...]  # which groups are the inference network's


class Study(NamedTuple):
    """What is measured there."""

    objective: str
    estimators: tuple[str, ...]
    cells: tuple[tuple[int, int], ...]  # (M, K)
    num_gradients: int  # of each estimator in each cell
    oracle_gradients: int
    seed: int = 0
    timing_rounds: int = 9


class Row(NamedTuple):
    """One estimator at one M and K, for one group of parameters."""

    estimator: str
    m: int
    k: int
    group: str
    statistics: gradient_statistics.Statistics
    bias: gradient_statistics.Bias
    verdict: str  # "biased", "none found", or "no bound" to be unbiased for
    oracle: str  # the estimator that it was compared with
    seconds: float  # per gradient (of all groups together)
    efficiency: float  # SNR^2 per second


def make_loss(model: Model, objective: str, estimator: str, m: int, k: int) -> LossFn:
    """(key, params, x [B, D]) -> loss [B], with the objective's own defaults for all else."""
    function = losses.OBJECTIVES[objective]
    accepted = inspect.signature(function).parameters
    options: dict[str, Any] = {"num_samples": k, "estimator": estimator, "vectorized": True}
    if "num_outer" in accepted:
        options["num_outer"] = m
    if "kl" in accepted:
        options["kl"] = "mc"  # In closed form, the KL would be no function of log-weights.

    given = NOTHING_GIVEN

    def loss_fn(key: Array, params: Any, x: Array) -> Array:
        def log_likelihood(z: Any) -> Array:
            return model.likelihood(params, z, given).log_prob(x)

        posterior, prior = model.posterior(params, x, given), model.prior(params, given)
        return function(key, posterior, prior, log_likelihood, **options)[0]

    return loss_fn


def oracle_of(estimator: str) -> str:
    """The unbiased estimator that another one is compared with: dreg for its low variance, and for
    dreg itself reparam.
    """
    return "reparam" if estimator == "dreg" else "dreg"


def able(estimator: str, m: int, k: int) -> bool:
    """Whether an estimator has enough draws."""
    return m * k > 1 or estimator not in estimators.COMPARING_ESTIMATORS


def check(study: Study, subject: Subject) -> None:
    """Raises the library's own ValueError for what cannot be computed, without computing."""
    for m, k in study.cells:
        for name in study.estimators:
            if able(name, m, k):
                loss_fn = make_loss(subject.model, study.objective, name, m, k)
                jax.eval_shape(loss_fn, jax.random.key(0), subject.params, subject.x)


def total_gradients(study: Study) -> int:
    """How many gradients `measure` draws, but for those that it times."""
    total = 0
    for m, k in study.cells:
        names = [name for name in study.estimators if able(name, m, k)]
        oracles = len(set(map(oracle_of, names)))
        total += len(names) * (study.num_gradients + _pilot_size(study))
        total += oracles * (study.num_gradients + study.oracle_gradients)
    return total


def measure(
    study: Study, subject: Subject, on_gradients: Callable[[int], None] = lambda more: None
) -> Iterator[list[Row]]:
    """Yields the rows of each cell; `on_gradients` is called with the number of new gradients.

    A cell's oracles are drawn twice, for directions and for comparison, and its estimators twice,
    as pilots and for the statistics: what is tested is independent of what it is tested along.
    """
    names = [n for m, k in study.cells for n in study.estimators if able(n, m, k)]
    groups = gradient_statistics.flat(subject.groups(subject.params))
    tests = sum(not _boundless(name, group, subject) for name in names for group in groups)
    for index, (m, k) in enumerate(study.cells):
        key = jax.random.fold_in(jax.random.key(study.seed), index)
        cell = _Cell(study, subject, m, k, key, on_gradients)
        if cell.names:
            yield cell.rows(LEVEL / max(1, tests))


class _Cell:
    """The programs of one M and K, and what is drawn with them."""

    def __init__(self, study: Study, subject: Subject, m: int, k: int, key: Array, on_gradients):
        self.study, self.subject, self.m, self.k = study, subject, m, k
        self.key, self.on_gradients = key, on_gradients
        self.names = [name for name in study.estimators if able(name, m, k)]
        # In the order of the estimators' list, so that numbers do not depend on the process.
        self.oracles = sorted(set(map(oracle_of, self.names)))
        self.samplers = {
            name: gradient_statistics.make_sampler(
                make_loss(subject.model, study.objective, name, m, k), subject.groups
            )
            for name in dict.fromkeys([*self.names, *self.oracles])
        }

    def rows(self, level: float) -> list[Row]:
        study = self.study
        sizes = {
            n: len(v)
            for n, v in gradient_statistics.flat(self.subject.groups(self.subject.params)).items()
        }
        number = len(gradient_statistics.rows_of(0, 1)) - 1 + len(self.names)
        nowhere = {name: np.zeros((number, size)) for name, size in sizes.items()}
        found = {
            name: self._draw(name, _DIRECTIONS, study.num_gradients, nowhere)
            for name in self.oracles
        }
        pilots = {
            name: self._draw(name, _PILOT, _pilot_size(study), nowhere) for name in self.names
        }
        rng = np.random.default_rng(study.seed)
        directions = {
            group: gradient_statistics.bias_directions(
                found[self.oracles[0]][group],
                [(pilots[name][group], found[oracle_of(name)][group]) for name in self.names],
                rng,
            )
            for group in sizes
        }
        oracles = {
            name: self._draw(name, _ORACLE, study.oracle_gradients, directions)
            for name in self.oracles
        }
        drawn, pace = {}, {}
        for name in self.names:
            start = time.perf_counter()
            drawn[name] = self._draw(name, _MAIN, study.num_gradients, directions)
            pace[name] = (time.perf_counter() - start) / study.num_gradients
        seconds = self._time(directions, pace)
        return [
            self._row(name, group, drawn[name][group], oracles, seconds[name], level)
            for group in sizes
            for name in self.names
        ]

    def _draw(
        self, name: str, use: int, number: int, directions
    ) -> dict[str, gradient_statistics.Moments]:
        done = 0

        def on_chunk(now: int) -> None:
            nonlocal done
            self.on_gradients(now - done)
            done = now

        subject, key = self.subject, self._key(name, use)
        sampler = self.samplers[name]
        return gradient_statistics.sample(
            sampler, key, subject.params, subject.x, directions, number, on_chunk
        )

    def _key(self, name: str, use: int) -> Array:
        which = tuple(losses.ESTIMATORS).index(name)
        return jax.random.fold_in(jax.random.fold_in(self.key, use), which)

    def _time(self, directions, pace: dict[str, float]) -> dict[str, float]:
        subject = self.subject
        rows = jax.tree.map(lambda row: jax.numpy.asarray(row, np.float32), directions)

        def call_of(name: str) -> Callable[[int], Any]:
            sampler, key = self.samplers[name], self._key(name, _TIMING)
            return lambda number: sampler(key, subject.params, subject.x, rows, 0, number, True)

        calls = {name: call_of(name) for name in self.names}
        numbers = {name: max(1, round(_TIMED_SECONDS / pace[name])) for name in self.names}
        return gradient_statistics.seconds_each(calls, numbers, self.study.timing_rounds)

    def _row(self, name: str, group: str, moments, oracles, seconds: float, level: float) -> Row:
        statistics = gradient_statistics.describe(moments)
        oracle = oracle_of(name)
        rows = gradient_statistics.rows_of(self.names.index(name), len(self.names))
        bias = gradient_statistics.bias_test(moments, oracles[oracle][group], rows, level)
        verdict = "biased" if bias.p_value < level else "none found"
        if _boundless(name, group, self.subject):
            verdict = "no bound"
        efficiency = statistics.snr**2 / seconds
        return Row(
            name, self.m, self.k, group, statistics, bias, verdict, oracle, seconds, efficiency
        )


def slopes(rows: Sequence[Row], by: str) -> dict[tuple[str, str], float]:
    """The power of K (by="k") or M (by="m") as which the SNR changes, by (group, estimator).

    Fitted to log SNR by least squares over all cells whose SNR is at least three times the floor;
    NaN for fewer than two. The other letter has to be the same in all rows.
    """
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        points = found.setdefault((row.group, row.estimator), [])
        if row.statistics.snr >= 3 * row.statistics.snr_floor:
            points.append((getattr(row, by), row.statistics.snr))
    return {
        which: gradient_statistics.slope([x for x, _ in points], [y for _, y in points])
        for which, points in found.items()
    }


def _pilot_size(study: Study) -> int:
    return max(2, study.num_gradients // 4)


def _boundless(estimator: str, group: str, subject: Subject) -> bool:
    return estimator in BOUNDLESS and group in subject.inference
