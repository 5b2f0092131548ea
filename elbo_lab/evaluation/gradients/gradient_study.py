"""A study of gradient estimators: one objective at one point, for several estimators, K and M."""

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

# Objectives that are functions of log-weights, with one target or two.
OBJECTIVES = tuple(
    name
    for name, entry in losses.CATALOGUE.items()
    if entry.estimators and entry.kind in (catalogue.LOG_WEIGHTS, catalogue.TWO_TARGETS)
)
# Estimators whose gradient of the inference network is not the gradient of a bound.
BOUNDLESS = ("wake", "wake_dreg")
# Largest probability that a study of unbiased estimators calls any of them biased.
LEVEL = 0.01
# One constant for each use of keys.
_DIRECTIONS, _ORACLE, _PILOT, _MAIN, _TIMING = range(5)
# Duration of one timing round of one estimator.
_TIMED_SECONDS = 0.05

GroupMoments = dict[str, gradient_statistics.Moments]


class Subject(NamedTuple):
    """A model, the point at which gradients are taken, and the examples."""

    model: Model
    params: Any
    x: Array  # [B, D], the examples, float32
    groups: gradient_statistics.Groups
    inference: tuple[str, ...]  # names of the groups that belong to the inference network


class Study(NamedTuple):
    """Settings of a study."""

    objective: str
    estimators: tuple[str, ...]
    cells: tuple[tuple[int, int], ...]  # (M, K)
    num_gradients: int  # of each estimator in each cell
    oracle_gradients: int
    seed: int = 0
    timing_rounds: int = 9


class Row(NamedTuple):
    """Results of one estimator at one M and K, for one group of parameters."""

    estimator: str
    m: int
    k: int
    group: str
    statistics: gradient_statistics.Statistics
    bias: gradient_statistics.Bias
    verdict: str  # "biased"; "none found"; "no bound": it estimates no bound's gradient
    oracle: str  # the estimator that it was compared with
    seconds: float  # per gradient of all groups together
    efficiency: float  # SNR^2 per second


def make_loss(model: Model, objective: str, estimator: str, m: int, k: int) -> LossFn:
    """Returns the loss (key, params, x [B, D]) -> [B]; further options have their defaults."""
    function = losses.OBJECTIVES[objective]
    accepted = inspect.signature(function).parameters
    options: dict[str, Any] = {"num_samples": k, "estimator": estimator, "vectorized": True}
    if "num_outer" in accepted:
        options["num_outer"] = m
    if "kl" in accepted:
        options["kl"] = "mc"  # The closed-form KL is not a function of log-weights.

    def loss_fn(key: Array, params: Any, x: Array) -> Array:
        def log_likelihood(z: Any) -> Array:
            return model.likelihood(params, z, NOTHING_GIVEN).log_prob(x)

        posterior = model.posterior(params, x, NOTHING_GIVEN)
        prior = model.prior(params, NOTHING_GIVEN)
        loss, _ = function(key, posterior, prior, log_likelihood, **options)
        return loss

    return loss_fn


def oracle_for(estimator: str) -> str:
    """Names the unbiased estimator that another one is compared with.

    It is dreg, for its low variance; dreg itself is compared with reparam.
    """
    return "reparam" if estimator == "dreg" else "dreg"


def has_enough_draws(estimator: str, m: int, k: int) -> bool:
    """True if an estimator has enough draws: some compare draws, and need more than one."""
    return estimators.has_enough(estimator, m * k)


def check(study: Study, subject: Subject) -> None:
    """Traces every loss without computing it.

    Raises:
      ValueError: the library refuses the objective, estimator or model.
    """
    for m, k in study.cells:
        for name in _measured_estimators(study, m, k):
            loss_fn = make_loss(subject.model, study.objective, name, m, k)
            jax.eval_shape(loss_fn, jax.random.key(0), subject.params, subject.x)


def total_gradients(study: Study) -> int:
    """Number of gradients that `measure` draws, without those for timing."""
    total = 0
    for m, k in study.cells:
        names = _measured_estimators(study, m, k)
        total += len(names) * (study.num_gradients + _pilot_size(study))
        total += len(_oracles(names)) * (study.num_gradients + study.oracle_gradients)
    return total


def measure(
    study: Study, subject: Subject, on_gradients: Callable[[int], None] = lambda more: None
) -> Iterator[list[Row]]:
    """Measures the cells, one after the other.

    In each cell oracles are drawn twice, for directions and for comparison. Estimators are drawn
    twice too, as pilots for directions and for the statistics. So the tests' draws are independent
    of their directions.

    Args:
      study: the settings.
      subject: the model, its parameters and the examples.
      on_gradients: called with the number of new gradients after each chunk.

    Yields:
      The rows of each cell in which an estimator can be measured, for all groups.
    """
    groups = gradient_statistics.flat(subject.groups(subject.params))
    num_tests = 0
    for m, k in study.cells:
        for name in _measured_estimators(study, m, k):
            num_tests += sum(not _boundless(name, group, subject) for group in groups)
    for index, (m, k) in enumerate(study.cells):
        key = jax.random.fold_in(jax.random.key(study.seed), index)
        cell = _Cell(study, subject, m, k, key, on_gradients)
        if cell.names:
            yield cell.rows(LEVEL / max(1, num_tests))


class _Cell:
    """The programs of one M and K, and their results."""

    def __init__(
        self,
        study: Study,
        subject: Subject,
        m: int,
        k: int,
        key: Array,
        on_gradients: Callable[[int], None],
    ):
        self.study, self.subject, self.m, self.k = study, subject, m, k
        self.key, self.on_gradients = key, on_gradients
        self.names = _measured_estimators(study, m, k)
        self.oracles = _oracles(self.names)
        self.samplers = {
            name: gradient_statistics.make_sampler(
                make_loss(subject.model, study.objective, name, m, k), subject.groups
            )
            for name in dict.fromkeys([*self.names, *self.oracles])
        }

    def rows(self, level: float) -> list[Row]:
        """Draws and times all gradients; the rows of all groups and estimators.

        Args:
          level: probability of each test to find a bias where there is none.
        """
        study = self.study
        directions = self._directions()
        oracles = {
            name: self._draw(name, _ORACLE, study.oracle_gradients, directions)
            for name in self.oracles
        }
        moments: dict[str, GroupMoments] = {}
        rough_seconds = {}  # per gradient, with the compilation
        for name in self.names:
            start = time.perf_counter()
            moments[name] = self._draw(name, _MAIN, study.num_gradients, directions)
            rough_seconds[name] = (time.perf_counter() - start) / study.num_gradients
        seconds = self._time(directions, rough_seconds)
        return [
            self._row(
                name, group, moments[name][group], oracles[oracle_for(name)][group], seconds, level
            )
            for group in directions
            for name in self.names
        ]

    def _directions(self) -> dict[str, np.ndarray]:
        """Group -> directions of its tests, [J, P], from draws of oracles and pilots."""
        study, subject = self.study, self.subject
        # Zeros in the directions' shapes: one compiled program serves all draws.
        num_directions = gradient_statistics.num_directions(len(self.names))
        zeros = {
            group: np.zeros((num_directions, len(vector)))
            for group, vector in gradient_statistics.flat(subject.groups(subject.params)).items()
        }
        oracles = {
            name: self._draw(name, _DIRECTIONS, study.num_gradients, zeros) for name in self.oracles
        }
        pilots = {name: self._draw(name, _PILOT, _pilot_size(study), zeros) for name in self.names}
        rng = np.random.default_rng(study.seed)
        directions = {}
        for group in zeros:
            pairs = [(pilots[name][group], oracles[oracle_for(name)][group]) for name in self.names]
            signal = oracles[self.oracles[0]][group]
            directions[group] = gradient_statistics.bias_directions(signal, pairs, rng)
        return directions

    def _draw(
        self, name: str, use: int, number: int, directions: dict[str, np.ndarray]
    ) -> GroupMoments:
        """Moments of `number` gradients of an estimator, with the keys of one use."""
        done = 0

        def on_chunk(now_done: int) -> None:
            nonlocal done
            self.on_gradients(now_done - done)
            done = now_done

        subject, key = self.subject, self._key(name, use)
        return gradient_statistics.sample(
            self.samplers[name], key, subject.params, subject.x, directions, number, on_chunk
        )

    def _key(self, name: str, use: int) -> Array:
        estimator_index = tuple(losses.ESTIMATORS).index(name)
        return jax.random.fold_in(jax.random.fold_in(self.key, use), estimator_index)

    def _time(
        self, directions: dict[str, np.ndarray], rough_seconds: dict[str, float]
    ) -> dict[str, float]:
        """Seconds per gradient of each estimator; `rough_seconds` sizes the timing rounds."""
        subject = self.subject
        rows = jax.tree.map(lambda row: jax.numpy.asarray(row, np.float32), directions)

        def sampler_call(name: str) -> Callable[[int], Any]:
            sampler, key = self.samplers[name], self._key(name, _TIMING)
            return lambda number: sampler(key, subject.params, subject.x, rows, 0, number, True)

        calls = {name: sampler_call(name) for name in self.names}
        numbers = {name: max(1, round(_TIMED_SECONDS / rough_seconds[name])) for name in self.names}
        return gradient_statistics.seconds_each(calls, numbers, self.study.timing_rounds)

    def _row(
        self,
        name: str,
        group: str,
        moments: gradient_statistics.Moments,
        oracle_moments: gradient_statistics.Moments,
        seconds: dict[str, float],
        level: float,
    ) -> Row:
        statistics = gradient_statistics.describe(moments)
        tested = gradient_statistics.rows_of(self.names.index(name), len(self.names))
        bias = gradient_statistics.bias_test(moments, oracle_moments, tested, level)
        verdict = "biased" if bias.p_value < level else "none found"
        if _boundless(name, group, self.subject):
            verdict = "no bound"
        return Row(
            estimator=name,
            m=self.m,
            k=self.k,
            group=group,
            statistics=statistics,
            bias=bias,
            verdict=verdict,
            oracle=oracle_for(name),
            seconds=seconds[name],
            efficiency=statistics.snr**2 / seconds[name],
        )


def slopes(rows: Sequence[Row], by: str) -> dict[tuple[str, str], float]:
    """Exponents p of the SNR's power law K^p or M^p, for each group and estimator.

    They are slopes of log SNR by least squares, over cells whose SNR is at least three times the
    floor.

    Args:
      rows: with equal M if `by` is "k", and with equal K if it is "m".
      by: "k" or "m".

    Returns:
      (group, estimator) -> exponent; NaN for fewer than two cells.
    """
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        curve = points.setdefault((row.group, row.estimator), [])
        if row.statistics.snr >= 3 * row.statistics.snr_floor:
            curve.append((getattr(row, by), row.statistics.snr))
    return {
        group_and_estimator: gradient_statistics.slope([x for x, _ in curve], [y for _, y in curve])
        for group_and_estimator, curve in points.items()
    }


def _measured_estimators(study: Study, m: int, k: int) -> list[str]:
    """The study's estimators that have enough draws at M and K."""
    return [name for name in study.estimators if has_enough_draws(name, m, k)]


def _oracles(names: Sequence[str]) -> list[str]:
    """The oracles of some estimators, sorted: a set's order differs between processes."""
    return sorted({oracle_for(name) for name in names})


def _pilot_size(study: Study) -> int:
    return max(2, study.num_gradients // 4)


def _boundless(estimator: str, group: str, subject: Subject) -> bool:
    return estimator in BOUNDLESS and group in subject.inference
