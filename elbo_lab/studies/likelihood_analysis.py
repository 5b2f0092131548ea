"""What the study likelihoods measures: bias and spread of estimates of log p(x), and what is left
of the gradient.

With K draws z_k from a proposal q and log-weights log w_k = log p(x|z_k) + log p(z_k) - log q(z_k),
the estimates are log 1/K sum_k w_k (q = p(z): the mean likelihood of draws from the prior) and the
mean of log w_k, the ELBO. Their gradient by the generation network's weights W is
sum_k v_k (x - W z_k) z_k^T / s^2, where v is the estimate's derivative by log w.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab import keys
from elbo_lab.losses import bounds
from elbo_lab.studies import likelihood_problem
from elbo_lab.studies.likelihood_problem import Problem, Proposal

EXAMPLES = 50
# (L, views): in the first group D = L grows with the latents, in the second D alone.
BOTH_GROW, DATA_GROW = ((2, 1), (8, 1), (32, 1)), ((2, 4), (2, 16), (2, 64))


class Estimate(NamedTuple):
    """A way to estimate log p(x)."""

    proposal: Callable[[Problem, np.ndarray], Proposal]
    bound: Callable[[Array], Array]  # log-weights [K, N] -> [N]


PRIOR = "prior"
ESTIMATES = {
    PRIOR: Estimate(likelihood_problem.prior, bounds.iwae),
    "fixed q(z)": Estimate(likelihood_problem.fixed, bounds.iwae),
    "posterior p(z|x)": Estimate(likelihood_problem.exact_posterior, bounds.iwae),
    "q(z|x), ELBO": Estimate(likelihood_problem.amortized, bounds.elbo),
    "q(z|x), IWAE": Estimate(likelihood_problem.amortized, bounds.iwae),
}


class Draws(NamedTuple):
    """Estimates from R repeats of K draws, for every K, and their gradients."""

    values: Array  # [R, S, N], estimates of log p(x); S numbers of draws
    norms: Array  # [R, S, N], norms of their gradients
    cosines: Array  # [R, S, N], cosines of their gradients with the exact gradient
    effective: Array  # [R, S, N], effective sample sizes, of K draws
    is_zero: Array  # [R, S, N], True: 1/K sum_k w_k, not its logarithm, is 0 in float32
    log_px_z: Array  # [], mean of log p(x|z_k)


def numbers_of_draws(most: int) -> tuple[int, ...]:
    """1, 10, 100, ... up to `most`, which is the last."""
    powers = [10**i for i in range(len(str(most)))]
    return tuple(dict.fromkeys([*powers, most]))


@functools.partial(jax.jit, static_argnames=("bound", "numbers"))
def draw(
    repeat_keys: Array,
    x: Array,
    w: Array,
    slope: Array,
    proposal: Proposal,
    bound: Callable[[Array], Array],
    numbers: tuple[int, ...],
) -> Draws:
    """Estimates log p(x) in every repeat, with the first K of its draws for each K.

    Args:
      repeat_keys: [R].
      x: [N, D].
      w: W, [D, L].
      slope: d log p(x) / dW, [N, D, L], with which gradients are compared.
      proposal: of z.
      bound: log-weights [K, N] -> the estimate [N].
      numbers: every K, the last one the greatest.
    """
    latent_dim = w.shape[1]
    weights_of = jax.grad(lambda log_w: jnp.sum(bound(log_w)))

    def estimate(log_w: Array, residual: Array, z: Array) -> tuple[Array, ...]:
        v = weights_of(log_w)  # [K, N]
        gradient = jnp.einsum("knd,knl->ndl", v[..., None] * residual, z)
        gradient = gradient / likelihood_problem.VARIANCE
        norm = _norm(gradient)
        normalized = jax.nn.softmax(log_w, axis=0)
        return (
            bound(log_w),
            norm,
            jnp.sum(gradient * slope, axis=(1, 2)) / (norm * _norm(slope)),
            1 / jnp.sum(normalized**2, axis=0),
            jnp.mean(jnp.exp(log_w), axis=0) == 0,
        )

    def repeat(key: Array) -> tuple[Array, ...]:
        noise = jax.random.normal(key, (numbers[-1], len(x), latent_dim))
        z = proposal.mean + noise @ proposal.cholesky.T
        residual = x - z @ w.T
        log_px_z = _log_normal(residual, math.log(likelihood_problem.VARIANCE) / 2)
        log_qz = _log_normal(noise, 0.0) - jnp.sum(jnp.log(jnp.diag(proposal.cholesky)))
        log_w = log_px_z + _log_normal(z, 0.0) - log_qz
        parts = [estimate(log_w[:k], residual[:k], z[:k]) for k in numbers]
        return (*(jnp.stack(part) for part in zip(*parts, strict=True)), jnp.mean(log_px_z))

    *measured, log_px_z = jax.lax.map(repeat, repeat_keys)
    return Draws(*measured, jnp.mean(log_px_z))


def _norm(gradient: Array) -> Array:
    return jnp.sqrt(jnp.sum(gradient**2, axis=(1, 2)))


def _log_normal(distance: Array, log_scale: float) -> Array:
    """log N(distance; 0, scale^2 I) [...] of distance [..., n]."""
    squares = jnp.sum((distance / math.exp(log_scale)) ** 2, axis=-1)
    return -0.5 * squares - distance.shape[-1] * (log_scale + math.log(2 * math.pi) / 2)


def row(problem: Problem, x: np.ndarray, draws: Draws) -> dict[str, list[float]]:
    """Statistics of an estimate for every K, over the repeats and the examples x [N, D].

    Returns:
      bias: mean of the estimate minus log p(x), nats.
      bias_error: its standard error over repeats.
      sd: standard deviation of the estimate of one example, nats (root of the mean variance).
      norm: root mean square of the gradient's norm, in units of that of the exact gradient.
      cosine: mean cosine of an estimate's gradient with the exact gradient, 1 where they agree in
        direction.
      effective: effective sample size, the number of draws that count.
      underflow: fraction of the repeats in which 1/K sum_k w_k is 0 in float32.
      log_ratio: median of log10 |d p^(x)/dW| / |d p(x)/dW|, where p^ is 1/K sum_k w_k.
    """
    exact, slope = likelihood_problem.log_px(problem, x), likelihood_problem.gradient(problem, x)
    errors = np.float64(draws.values) - exact  # [R, S, N]
    over_examples = errors.mean(axis=2)
    norms, exact_norms = np.float64(draws.norms), np.linalg.norm(slope, axis=(1, 2))
    log_ratio = errors + np.log(norms / exact_norms)
    statistics = {
        "bias": over_examples.mean(axis=0),
        "bias_error": over_examples.std(axis=0, ddof=1) / np.sqrt(len(errors)),
        "sd": np.sqrt(errors.var(axis=0, ddof=1).mean(axis=1)),
        "norm": np.sqrt((norms**2).mean(axis=(0, 2)) / np.mean(exact_norms**2)),
        "cosine": np.float64(draws.cosines).mean(axis=(0, 2)),
        "effective": np.float64(draws.effective).mean(axis=(0, 2)),
        "underflow": np.float64(draws.is_zero).mean(axis=(0, 2)),
        "log_ratio": np.median(log_ratio, axis=(0, 2)) / np.log(10),
    }
    return {name: values.tolist() for name, values in statistics.items()}


def measure(
    key: Array, problem: Problem, x: np.ndarray, names: Sequence[str], most: int, repeats: int
) -> dict[str, Any]:
    """Everything of one model, JSON-ready.

    Args:
      key: one typed PRNG key.
      problem: the model.
      x: [N, D], its examples.
      names: in ESTIMATES.
      most: the greatest K.
      repeats: R, at least 2.
    """
    numbers, rows = numbers_of_draws(most), []
    as_float32 = functools.partial(jax.tree.map, lambda array: jnp.asarray(array, jnp.float32))
    repeat_keys = jax.random.split(key, repeats)
    slope = likelihood_problem.gradient(problem, x)
    for name in names:
        proposal = ESTIMATES[name].proposal(problem, x)
        # Reduced precision, the default of GPUs and TPUs, would move log-weights by whole nats.
        with jax.default_matmul_precision("highest"):
            draws = draw(
                jax.random.clone(repeat_keys),
                *as_float32((x, problem.w, slope, proposal)),
                ESTIMATES[name].bound,
                numbers,
            )
        posterior = likelihood_problem.exact_posterior(problem, x)
        means = {
            "kl": float(likelihood_problem.kl(proposal, posterior).mean()),
            "kl_of_posterior": float(likelihood_problem.kl(posterior, proposal).mean()),
            "log_px_z": float(draws.log_px_z),
        }
        rows.append({"estimate": name, **means, **row(problem, x, jax.device_get(draws))})
    return {
        "latent_dim": problem.latent_dim,
        "data_dim": problem.data_dim,
        "log_px": float(likelihood_problem.log_px(problem, x).mean()),
        "draws": list(numbers),
        "estimates": rows,
    }


def all_problems(
    seed: int, most: int, repeats: int, on_problem: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """`measure` of every model: all estimates where D = L, draws from the prior where D grows.

    Args:
      seed: of the examples and of the draws.
      most: the greatest K.
      repeats: R, at least 2.
      on_problem: called after each model.
    """
    base_key, measured = keys.base_key(seed), []
    for index, (latent_dim, views) in enumerate(BOTH_GROW + DATA_GROW):
        problem = likelihood_problem.make(latent_dim, views)
        x = likelihood_problem.examples(problem, np.random.default_rng([seed, index]), EXAMPLES)
        key = keys.stream_key(base_key, keys.EVALUATION, index)
        names = tuple(ESTIMATES) if views == 1 else (PRIOR,)
        measured.append(measure(key, problem, x, names, most, repeats))
        on_problem()
    return measured
