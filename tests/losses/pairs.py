"""Pairwise test design over objective, estimator, library and setting, and how a row is computed.

Every pair of values that can occur together occurs in at least one row.
"""

import functools
import inspect
import itertools
from typing import NamedTuple

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from tensorflow_probability.substrates import jax as tfp

from elbo_lab import losses
from elbo_lab.losses.common import (
    ANY_BOUND,
    FIXED_DRAWS,
    FOR_IWAE,
    FOR_MEAN,
    NOT_WAKE,
    WEIGHTED_MEAN,
    WITHOUT_LOG_Q,
)
from tests.losses import calls, linear_gaussian, own_normal

B, D, L = 4, 3, 2
K = calls.K
EXACT = linear_gaussian.make_params(D, L)
X = np.random.default_rng(7).normal(size=(B, D))
OPTIONS = calls.OPTIONS | {"tvo": {"partition": (0.0, 0.03125, 0.5, 1.0)}}


class Row(NamedTuple):
    objective: str
    estimator: str | None  # None: the objective takes none
    library: str
    setting: str


# Products of normals, of mean [*batch, L] and scale [L].
LIBRARIES = {
    "numpyro": lambda mean, scale: dist.Normal(mean, scale).to_event(1),
    "distrax": lambda mean, scale: distrax.Independent(distrax.Normal(mean, scale), 1),
    "tfp": lambda mean, scale: tfp.distributions.Independent(
        tfp.distributions.Normal(mean, scale), 1
    ),
    "own": own_normal.OwnNormal,
}
SETTINGS = ("jit", "vmap", "shard_map", "remat", "x64", "bfloat16", "strict")
VALUES = {
    "objective": tuple(losses.OBJECTIVES),
    "estimator": (*calls.GAUSSIAN, None),
    "library": tuple(LIBRARIES),
    "setting": SETTINGS,
}

# Reasons for impossible rows.

# The estimators that an objective takes: why it takes no other.
REASONS = {
    FOR_IWAE: "an estimator must be chosen",
    FOR_MEAN: "ovis is the IWAE bound's alone, and an estimator must be chosen",
    ANY_BOUND: "ovis is the IWAE bound's alone, and an estimator must be chosen",
    WEIGHTED_MEAN: "the wake estimators weigh w, and would leave the objective's own weights out",
    NOT_WAKE: "the wake estimators weigh w, and would leave the objective's own weights out",
    FIXED_DRAWS: "the bound is not defined for K - 1 draws",
    WITHOUT_LOG_Q: "the estimated term does not contain log q",
    ("reparam",): "the regularizer uses the draws too, and needs their derivative",
    (): "the objective has an update of its own for each network, and takes no estimator",
}
NEEDS_FACTORS = ("free_bits", "free_bits_batch", "beta_tcvae", "dip_vae_ii")
NEEDS_FACTORS_REASON = "a user's own class is not known to be a product over latent dimensions"


def reason(row):
    """The reason why a row is impossible; None if it is possible."""
    estimators = losses.CATALOGUE[row.objective].estimators
    if row.estimator not in (estimators or (None,)):
        return REASONS[estimators]
    if row.library == "own" and row.objective in NEEDS_FACTORS:
        return NEEDS_FACTORS_REASON
    return None


def pairs_of(row):
    """The pairs of (field, value) that occur in a row."""
    return itertools.combinations(zip(row._fields, row, strict=True), 2)


def all_rows():
    return [Row(*values) for values in itertools.product(*VALUES.values())]


@functools.cache
def design():
    """Rows in which every possible pair occurs.

    First every objective by every estimator, with NumPyro under jit. Then, repeatedly, the row with
    the most pairs that are still missing, until none is missing.
    """
    possible = [row for row in all_rows() if reason(row) is None]
    rows = [row for row in possible if row.library == "numpyro" and row.setting == "jit"]
    missing = set(itertools.chain.from_iterable(map(pairs_of, possible)))
    missing.difference_update(*map(pairs_of, rows))
    while missing:
        rows.append(max(possible, key=lambda row: sum(pair in missing for pair in pairs_of(row))))
        missing.difference_update(pairs_of(rows[-1]))
    return rows


def rows_of(setting, library=None):
    """The design's rows with a setting and, unless None, with a library."""
    return [row for row in design() if row.setting == setting and library in (None, row.library)]


# The computation of a row.


class Result(NamedTuple):
    loss: np.ndarray  # [B]
    aux: NamedTuple
    z: np.ndarray | None  # [K, B, L], the draws, for beta_tcvae alone
    slopes: linear_gaussian.Params  # of the mean loss


class GivenDraws(dist.Normal):
    """NumPyro's normal with the standard normal draws of another library, drawn in a type and cast.

    It is the reference that the library's own normal must equal draw for draw.
    """

    def __init__(self, mean, scale, library, dtype):
        self.library, self.dtype = library, dtype
        super().__init__(mean, scale)

    def sample(self, key, sample_shape=()):
        zeros = jnp.zeros(self.batch_shape, self.dtype)
        standard = LIBRARIES[self.library](zeros, jnp.ones(self.batch_shape[-1], self.dtype))
        takes_seed = "seed" in inspect.signature(standard.sample).parameters
        options = {"seed" if takes_seed else "key": key, "sample_shape": sample_shape}
        return self.loc + self.scale * standard.sample(**options).astype(self.loc.dtype)


def params_of(dtype):
    return linear_gaussian.Params(*(jnp.asarray(leaf, dtype) for leaf in EXACT))


def problem_of(row, params, x, normal=None):
    """Posterior, prior and log_likelihood, in the parameters' type.

    Args:
      row: its library makes the distributions.
      params: the model's parameters.
      x: [B, D].
      normal: (mean, scale) -> distribution, to use instead of the row's library.
    """
    normal = normal or LIBRARIES[row.library]
    dtype = params.w.dtype
    x = jnp.asarray(x, dtype)
    posterior = normal(linear_gaussian.affine(x, params.a, params.c), jnp.exp(params.log_scale))
    prior = normal(jnp.zeros(L, dtype), jnp.ones(L, dtype))

    def log_likelihood(z):
        mean = linear_gaussian.affine(z, params.w, params.b)
        sigma = jnp.full(D, linear_gaussian.SIGMA, dtype)
        return own_normal.log_normal(jnp.broadcast_to(x, mean.shape), mean, sigma)

    return posterior, prior, log_likelihood


def options_of(row, params, x, normal=None):
    """Keyword arguments, and the generation mean, which lambda_vae takes as its likelihood."""
    normal = normal or LIBRARIES[row.library]
    dtype = params.w.dtype

    def mean(z):
        return linear_gaussian.affine(z, params.w, params.b)

    candidates = {
        "x": jnp.asarray(x, dtype),
        "inference": lambda x: problem_of(row, params, x, normal)[0],
        "generation": lambda z: normal(mean(z), jnp.full(D, linear_gaussian.SIGMA, dtype)),
        "estimator": row.estimator,
        "num_samples": K,
    }
    accepted = inspect.signature(losses.OBJECTIVES[row.objective]).parameters
    options = {name: value for name, value in candidates.items() if name in accepted}
    return options | OPTIONS.get(row.objective, {}), mean


def objective_of(row, params, x, key, normal=None):
    """Loss, aux and, for beta_tcvae, the draws (else None)."""
    problem = problem_of(row, params, x, normal)
    options, mean = options_of(row, params, x, normal)
    arguments = (*problem[:2], mean if "x" in options else problem[2])
    same_key = jax.random.clone(key)
    loss, aux = losses.OBJECTIVES[row.objective](key, *arguments, **options)
    z = None
    if row.objective == "beta_tcvae":
        z = losses.log_weights(same_key, *problem, num_samples=K).z
    return loss, aux, z


def value_and_slopes(row, params, x, key, normal=None):
    def total(params):
        loss, aux, z = objective_of(row, params, x, jax.random.clone(key), normal)
        return jnp.mean(loss), (loss, aux, z)

    (_, parts), slopes = jax.value_and_grad(total, has_aux=True)(params)
    return Result(*parts, slopes)


def rematerialized(row, params, x, keys):
    """Results of all keys, [keys, ...], with the slopes of the sum over keys."""

    @jax.checkpoint
    def step(params, key):
        loss, aux, z = objective_of(row, params, x, key)
        return jnp.mean(loss), (loss, aux, z)

    def total(params):
        def add(total, key):
            value, parts = step(params, key)
            return total + value, parts

        return jax.lax.scan(add, jnp.zeros((), jnp.float32), jax.random.clone(keys))

    (_, parts), slopes = jax.value_and_grad(total, has_aux=True)(params)
    return Result(*parts, slopes)


# Rows that are compiled as one program, since compilation takes most of the time.
GROUP = 8


def keys():
    return jax.random.split(jax.random.key(0), 2)


def batched(rows):
    return [rows[i : i + GROUP] for i in range(0, len(rows), GROUP)]


def grouped(rows, function, *arguments):
    """The results function(row, *arguments) by row, several rows in one compiled program."""
    results = {}
    for group in batched(rows):
        program = jax.jit(lambda *args, group=group: [function(row, *args) for row in group])
        results |= zip(group, program(*arguments), strict=True)
    return results


def of_both_keys(rows, params, x, normal=None):
    """Results by row of both keys, [2, ...], with the sum of their slopes.

    Args:
      rows: the rows.
      params: the model's parameters.
      x: [B, D].
      normal: row -> `problem_of`'s normal; None: the rows' libraries.
    """

    def compute(row, params, x, key):
        return value_and_slopes(row, params, x, key, None if normal is None else normal(row))

    results = {}
    for group in batched(rows):
        program = jax.jit(lambda *args, group=group: [compute(row, *args) for row in group])
        by_key = [program(params, x, key) for key in keys()]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *by_key)
        results |= zip(group, map(sum_slopes, stacked), strict=True)
    return results


def sum_slopes(result):
    """A result of keys, [2, ...], with its slopes summed over keys."""
    return result._replace(
        slopes=jax.tree.map(lambda leaf: np.sum(leaf, axis=0, dtype=leaf.dtype), result.slopes)
    )
