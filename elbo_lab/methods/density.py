"""Maximum likelihood of a model whose p(x) is exact."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.losses.posteriors import one_per_example
from elbo_lab.methods import class_rows
from elbo_lab.methods.base import Loss, Method, Picture
from elbo_lab.models.base import NOTHING_GIVEN, Density, Given, given_of


def make(model: Density, spec: Spec, measure_batch: int = 100) -> Method:
    """A density trained by -log p(x) and measured by log p(x), in nats, exactly.

    Loss: -log p(x) for each example (term "nll"). Quantity: "log_px". Picture: "samples", one draw
    for each example of the batch. With labels all of these are of p(x|y), and the picture has
    draws of each class.

    Args:
      model: with an exact `log_prob`.
      spec: of the data.
      measure_batch: examples that `measure` sees at once.
    """

    def init(key: Array, batch: Batch, mean: Array | None = None) -> tuple[Any, tuple]:
        return model.init(key, batch, mean), ()

    def loss(key: Array, params: Any, stats: Any, batch: Batch, hparams: dict) -> Loss:
        law = model.distribution(params, stats, given_of(batch, key))
        nll = -law.log_prob(batch.x)
        return Loss(nll, {"nll": nll})

    def measure(key: Array, params: Any, stats: Any, batch: Batch) -> dict[str, Array]:
        law = model.distribution(params, stats, given_of(batch))
        return {"log_px": law.log_prob(batch.x)}

    def measure_classes(key: Array, params: Any, stats: Any, batch: Batch) -> dict[str, Array]:
        def log_px(label: Array) -> Array:
            return model.distribution(params, stats, Given(label=label)).log_prob(batch.x)

        # One class after the other: together their activations would take C times the memory.
        return {"log_px_y": jax.lax.map(log_px, jnp.arange(model.classes)).T}

    def samples(key: Array, params: Any, stats: Any, batch: Batch) -> Array:
        law = model.distribution(params, stats, given_of(batch))
        return one_per_example(law, key, (len(batch.x),))

    def class_samples(key: Array, params: Any, stats: Any, batch: Batch) -> Array:
        label = jnp.repeat(class_rows.shown(model.classes), class_rows.COLUMNS)
        return model.distribution(params, stats, Given(label=label)).sample(key)

    def sample(
        key: Array,
        params: Any,
        stats: Any,
        number: int,
        given: Given = NOTHING_GIVEN,
        on_progress: Callable[[float], None] = lambda part: None,
    ) -> Array:
        law = model.distribution(params, stats, given)
        sample_shape = () if law.batch_shape else (number,)  # labels have a draw each
        if not hasattr(law, "sample_rows"):
            return law.sample(key, sample_shape)
        return sample_in_steps(
            model,
            key,
            params,
            stats,
            given,
            sample_shape,
            on_progress=lambda done, total: on_progress(done / total),
        )

    picture = Picture(samples, "Samples")
    if model.classes is not None:
        picture = class_rows.picture(class_samples, model.classes)
    return Method(
        init=init,
        loss=loss,
        terms=("nll",),
        measure=measure,
        measure_batch=measure_batch,
        pictures={"samples": picture},
        headline="log_px",
        sample=sample,
        classes=model.classes,
        measure_classes=None if model.classes is None else measure_classes,
        gradient_batch=model.gradient_batch,
    )


def sample_in_steps(
    model: Density,
    key: Array,
    params: Any,
    stats: Any,
    given: Given,
    sample_shape: tuple[int, ...] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Array:
    """Draws of an autoregressive density, by one compiled loop that is called for each row.

    Progress is reported after each call. The draws are those of
    `model.distribution(params, stats, given).sample(key, sample_shape)`.

    Args:
      model: whose distribution is an `Autoregressive`.
      key: one typed PRNG key.
      params, stats, given: of the distribution.
      sample_shape: of the draws.
      on_progress: called with the number of values drawn so far, and D.

    Returns:
      [*sample_shape, *batch, D].
    """

    @jax.jit
    def draw_row(key, params, stats, given, draws, row):
        law = model.distribution(params, stats, given)
        return law.sample_rows(key, draws, row, row + 1)

    law = model.distribution(params, stats, given)
    draws = law.blank(sample_shape)
    for row in range(law.num_rows):
        draws = jax.block_until_ready(draw_row(key, params, stats, given, draws, row))
        on_progress((row + 1) * law.spec.dim // law.num_rows, law.spec.dim)
    return draws.x
