"""Poems of a stored run of texts: draws, completions of a beginning, and walks between two.

A completion of x_1, ..., x_m is a draw of p(x | x_1..m). A model without latents draws the other
characters in turn, each given those before it. A model with a code z draws in two steps,

    z ~ p(z | x_1..m), in proportion to p(z) p(x_1..m | z),    then x_m+1, ... ~ p(. | z, x_1..m)

The first one is sampling importance resampling (Rubin 1987): many z from the prior, of which some
are drawn again with weights p(x_1..m | z). It is exact in the limit of many z. The effective sample
size, (sum w)^2 / sum w^2, says how many of them count.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab import models
from elbo_lab.data import Text
from elbo_lab.errors import UserError
from elbo_lab.losses.posteriors import sample_from
from elbo_lab.models.base import NOTHING_GIVEN, Density, Model
from elbo_lab.runs import geometry, sampling
from elbo_lab.runs.loading import Trained

# Draws of z that are weighted by a beginning.
CANDIDATES = 10_000


class Completed(NamedTuple):
    """Poems with the same beginning."""

    x: np.ndarray  # tokens [n, T], int32
    effective_sample_size: float | None  # of the CANDIDATES; None: the model has no z


class Walk(NamedTuple):
    """Poems decoded along straight paths between the codes of pairs of poems."""

    ends: np.ndarray  # tokens of the pairs, [P, 2, T]
    weights: np.ndarray  # of the second poem's code, [S]
    z: np.ndarray  # [P, S, L]
    x: np.ndarray  # one draw of p(x|z) for each, tokens [P, S, T]


def completed(trained: Trained, key: Array, prefix: str, number: int) -> Completed:
    """Draws of p(x | x_1..m), exact or by sampling importance resampling; see above.

    Args:
      trained: a run of texts.
      key: one typed PRNG key.
      prefix: the m first characters.
      number: n, of poems.

    Raises:
      UserError: the run models no characters; the beginning has a character that the run never
        saw, or is not shorter than its texts.
    """
    text = _text_of(trained, "prefix")
    prefix = _compact(text, prefix)
    if not 0 < len(prefix) < text.length:
        raise UserError(
            f"--prefix must have 1 to {text.length - 1} characters, since the texts of "
            f"{trained.path} have {text.length}; got {len(prefix)}."
        )
    known = _encoded(trained, "prefix", [prefix])[0]
    x = np.zeros((number, text.length), np.int32)
    x[:, : len(known)] = known
    model = models.make(trained.config, trained.spec)
    if isinstance(model, Density):
        return Completed(_completed_in_turn(trained, model, key, x, len(known)), None)
    z_key, x_key = jax.random.split(key)
    z, size = _codes_of(trained, model, z_key, x[0], len(known), number)

    @jax.jit
    def complete(params: Any, key: Array, z: Array, x: Array) -> Array:
        return model.likelihood(params, z, NOTHING_GIVEN).complete(key, x, len(known))

    parts = []
    for i, start in enumerate(range(0, number, sampling.CHUNK)):
        rows = slice(start, start + sampling.CHUNK)
        parts.append(complete(trained.params, jax.random.fold_in(x_key, i), z[rows], x[rows]))
    return Completed(np.concatenate(parts), size)


def walk(trained: Trained, key: Array, ends: np.ndarray) -> Walk:
    """Straight paths between the means of q(z|x) of pairs of poems, and a draw at each point.

    All points have the same noise: from one to the next, what changes is due to z.

    Args:
      trained: a run of --model=text.
      key: one typed PRNG key.
      ends: tokens of the pairs, [P, 2, T].
    """
    model = models.make(trained.config, trained.spec)
    means = np.asarray(trained.encode(ends.reshape(-1, ends.shape[-1])))
    means = means.reshape(*ends.shape[:2], -1)
    weights = np.linspace(0, 1, geometry.POINTS)
    z = np.stack([geometry.linear(*pair, weights) for pair in means]).astype(np.float32)

    @jax.jit
    def draw(params: Any, key: Array, z: Array) -> Array:
        return sample_from(model.likelihood(params, z, NOTHING_GIVEN), key, ())

    x = [[draw(trained.params, jax.random.clone(key), point) for point in path] for path in z]
    return Walk(ends, weights, z, np.array(x, np.int32))


def pairs_of(trained: Trained, poems: Sequence[str], indices: Sequence[int] | None) -> np.ndarray:
    """Tokens of the pairs that `walk` goes between, [P, 2, T].

    Args:
      trained: a run of texts.
      poems: two of them, or none: then test examples are taken.
      indices: of test examples, two for each pair; None: the first eight.

    Raises:
      UserError: the run has no codes of texts; not two poems, or one of another length or with a
        character that the run never saw; indices that are no pairs of test examples.
    """
    text = _text_of(trained, "show=interpolation")
    if trained.method.encode is None:
        raise UserError(
            f"--show=interpolation needs a run with codes of texts, as --model=text has; "
            f"{trained.path} is a run of {trained.config.model}, which has none."
        )
    if not poems:
        return _test_pairs(trained, indices)
    if len(poems) != 2:
        raise UserError(f"--poem must be given twice, for both ends; got {len(poems)}.")
    poems = [_compact(text, poem) for poem in poems]
    for poem in poems:
        if len(poem) != text.length:
            raise UserError(
                f"--poem must have {text.length} characters, as the texts of {trained.path} have; "
                f"got {len(poem)} in {poem!r}."
            )
    return _encoded(trained, "poem", poems)[None]


def _test_pairs(trained: Trained, indices: Sequence[int] | None) -> np.ndarray:
    x = trained.dataset.x_test
    if indices is None:
        indices = [i % len(x) for i in geometry.DEFAULT_EXAMPLES["interpolation"]]
    shown = ",".join(map(str, indices))
    if len(indices) % 2:
        raise UserError(f"--examples must be pairs of test examples; got {shown!r}, an odd number.")
    if max(indices) >= len(x):
        raise UserError(
            f"--examples must be indices of test examples, in 0..{len(x) - 1}; got {max(indices)}."
        )
    return x[list(indices)].reshape(-1, 2, x.shape[1])


def _text_of(trained: Trained, flag: str) -> Text:
    """How the tokens of a run that models characters are read."""
    text = trained.dataset.text
    if text is None or trained.spec.kind != "token" or trained.dataset.decode is not None:
        raise UserError(
            f"--{flag} needs a run of texts, such as --dataset=tang_quatrains; {trained.path} was "
            f"trained on {trained.config.dataset}."
        )
    return text


def _compact(text: Text, poem: str) -> str:
    """A poem without the spaces between its lines, unless a space is a character of the texts."""
    return poem if " " in text.vocabulary else "".join(poem.split())


def _encoded(trained: Trained, flag: str, poems: Sequence[str]) -> np.ndarray:
    """The tokens of texts that a flag gives, [n, length]."""
    try:
        return trained.dataset.text.encode(poems)
    except UserError as error:
        raise UserError(f"--{flag}: {error} that {trained.path} saw.") from error


def _completed_in_turn(
    trained: Trained, model: Density, key: Array, x: np.ndarray, start: int
) -> np.ndarray:
    @jax.jit
    def complete(params: Any, stats: Any, key: Array, x: Array) -> Array:
        return model.distribution(params, stats, NOTHING_GIVEN).complete(key, x, start)

    return np.asarray(complete(trained.params, trained.stats, key, jnp.asarray(x)))


def _codes_of(
    trained: Trained, model: Model, key: Array, x: np.ndarray, known: int, number: int
) -> tuple[Array, float]:
    """Draws of p(z | x_1..known), [number, L], by resampling; and the effective sample size."""
    draw_key, resample_key = jax.random.split(key)
    rows = min(CANDIDATES, model.rows)

    @jax.jit
    def weighted(params: Any, key: Array) -> tuple[Array, Array]:
        z = model.prior(params, NOTHING_GIVEN).sample(key, (rows,))
        law = model.likelihood(params, z, NOTHING_GIVEN)
        of_each = law.log_conditionals(jnp.broadcast_to(x, (rows, len(x))))
        return z, jnp.sum(of_each[:, :known], axis=1)

    keys = jax.random.split(draw_key, -(-CANDIDATES // rows))
    drawn = [weighted(trained.params, chunk_key) for chunk_key in keys]
    z, log_w = (jnp.concatenate(parts)[:CANDIDATES] for parts in zip(*drawn, strict=True))
    size = jnp.exp(2 * jax.nn.logsumexp(log_w) - jax.nn.logsumexp(2 * log_w))
    chosen = jax.random.categorical(resample_key, log_w, shape=(number,))
    return z[chosen], float(size)
