"""A latent-variable model under any objective by any estimator, measured by importance sampling."""

import functools
import inspect
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab import keys, losses
from elbo_lab.configs import Config, resolved
from elbo_lab.data.dataset import Batch
from elbo_lab.distributions.means import closed_form_mean, mean_of, mean_or_draw
from elbo_lab.losses.catalogue import CATALOGUE, LOG_WEIGHTS
from elbo_lab.losses.estimators import score
from elbo_lab.losses.posteriors import sample_from
from elbo_lab.methods import baselines, class_rows, importance
from elbo_lab.methods.base import Loss, Method, Picture
from elbo_lab.models.base import NOTHING_GIVEN, Given, Model, given_of
from elbo_lab.options import values_of

# Images in the figure of samples, and decoded points along a latent axis.
SAMPLES, GRID = 100, 20
TERMS = ("bound", "kl", "reconstruction")
# Draws of a q(z|x) without a mean in closed form, e.g. a flow, that are averaged for its features,
# and their key: an encoder has no noise of its own.
ENCODING_DRAWS, _ENCODING_KEY = 1000, 0
# A further term of a run with a learned baseline.
BASELINE_LOSS = "baseline_loss"


def make(config: Config, model: Model, num_train: int | None = None) -> Method:
    """The method of the configured objective.

    Args:
      config: reads objective, k, m, estimator, score_baseline, the objective's settings, eval_k.
      model: whose distributions the objective is made of.
      num_train: training examples, which some objectives of whole batches need.
    """
    baseline = baselines.make(config.score_baseline)

    def init(key: Array, batch: Batch, mean: Array | None = None) -> tuple[Any, Any]:
        if baseline is None:
            return model.init(key, batch, mean), ()
        # A folded key for the baseline: the model's start does not depend on it.
        own, stats = baseline.init(jax.random.fold_in(key, 0), batch.x)
        return model.init(key, batch, mean) | {"baseline": own}, stats

    measure_classes = None
    if model.classes is not None:
        measure_classes = importance.make_class_measure(model, config.k, config.eval_k)
    # Objectives of another kind may be functions of the whole batch.
    is_split = CATALOGUE[config.objective].kind == LOG_WEIGHTS

    return Method(
        init=init,
        loss=objective_loss(config, model, num_train),
        terms=TERMS if baseline is None else (*TERMS, BASELINE_LOSS),
        measure=importance.make_measure(model, config.k, config.eval_k),
        measure_batch=importance.batch_size(model, config.k, config.eval_k),
        pictures=pictures(model, has_plane(config, model)),
        headline="log_likelihood" if model.log_px is None else "log_px",
        layer_means=lambda key, params, stats, batch: importance.layer_means(
            key, model.posterior(params, batch.x, given_of(batch))
        ),
        sample=functools.partial(sample_compiled, model),
        encode=functools.partial(encode, model),
        posterior=lambda params, stats, batch: model.posterior(params, batch.x, given_of(batch)),
        prior=lambda params, stats, given: model.prior(params, given),
        decode=lambda params, stats, z, given: model.likelihood(params, z, given),
        classes=model.classes,
        measure_classes=measure_classes,
        gradient_batch=model.gradient_batch if is_split else None,
        update=None if baseline is None else update_baseline,
    )


def update_baseline(key: Array, params: Any, stats: Any, observed: Array) -> tuple[Any, dict]:
    """`Method.update` of a baseline's running mean, by the residuals of the batch."""
    del key, params
    return baselines.updated(stats, observed), {}


def has_plane(config: Config, model: Model) -> bool:
    """True if z is [*batch, 2] of real numbers, whose points are decoded without a label."""
    has_points = not model.is_discrete and model.classes is None
    return getattr(config.model_options, "latent_dims", None) == (2,) and has_points


def objective_loss(
    config: Config, model: Model, num_train: int | None = None
) -> Callable[..., Loss]:
    """The configured objective of the configured model as a loss per example, `Method.loss`.

    With a baseline, its loss is added, stats are its `RunningMean`, and observed its residuals.
    """
    objective = losses.OBJECTIVES[config.objective]
    baseline = baselines.make(config.score_baseline)
    accepted = inspect.signature(objective).parameters
    settings = values_of(config.objective_options) | {"estimator": resolved(config).estimator}
    settings |= {"num_samples": config.k, "num_outer": config.m, "dataset_size": num_train}
    options = {
        name: value for name, value in settings.items() if name in accepted and value is not None
    }

    def loss(key: Array, params: Any, stats: Any, batch: Batch, hparams: dict[str, Array]) -> Loss:
        given, x = given_of(batch, keys.beside(key)), batch.x
        arguments = {name: hparams[name] for name in accepted if name in hparams}

        def log_likelihood(z: Any) -> Array:
            return model.likelihood(params, z, given).log_prob(x)

        def decoder_mean(z: Any) -> Array:
            mean = closed_form_mean(model.likelihood(params, z, given))
            if mean is None:
                raise ValueError(f"{config.objective} needs a p(x|z) with a closed-form mean.")
            return mean

        if baseline is not None:
            predicted = baseline.value(params["baseline"], stats, x)
            arguments["estimator"] = functools.partial(score, baseline=predicted)
        if "x" in accepted:  # The objective compares x with the mean of p(x|z).
            arguments["x"] = x
        if "inference" in accepted:
            arguments["inference"] = lambda x: model.posterior(params, x, given)
            arguments["generation"] = lambda z: model.likelihood(params, z, given)
        value, aux = objective(
            key,
            model.posterior(params, x, given),
            model.prior(params, given),
            decoder_mean if "x" in accepted else log_likelihood,
            vectorized=True,
            **options | arguments,
        )
        reconstruction = jnp.mean(aux.log_px_z, axis=0)
        terms = {"bound": aux.bound, "kl": aux.kl, "reconstruction": reconstruction}
        if baseline is None:
            return Loss(value, terms)
        own_loss = baselines.loss(aux.learning_signal, predicted)
        residual = baselines.residual(stats, aux.learning_signal, predicted)
        return Loss(value + own_loss, terms | {BASELINE_LOSS: own_loss}, residual)

    return loss


def encode(model: Model, params: Any, stats: Any, batch: Batch) -> Array:
    """E_q[z|x] of the lowest stochastic layer, [B, L].

    Without a closed form it is the mean of ENCODING_DRAWS draws, by the same noise in every call.
    """
    del stats
    posterior = model.posterior(params, batch.x, given_of(batch))
    lowest = getattr(posterior, "first", posterior)
    return mean_of(jax.random.key(_ENCODING_KEY), lowest, ENCODING_DRAWS)


def sample(
    model: Model, key: Array, params: Any, stats: Any, number: int, given: Given = NOTHING_GIVEN
) -> Array:
    """Means of p(x|z), or draws if there is no closed form, for z from the prior: [number, D]."""
    del stats
    z_key, x_key = jax.random.split(key)
    prior = model.prior(params, given)
    z = sample_from(prior, z_key, () if getattr(prior, "batch_shape", ()) else (number,))
    return mean_or_draw(x_key, model.likelihood(params, z, given))


def sample_compiled(
    model: Model,
    key: Array,
    params: Any,
    stats: Any,
    number: int,
    given: Given = NOTHING_GIVEN,
    on_progress: Callable[[float], None] = lambda part: None,
) -> Array:
    """`sample` in one compiled call."""
    draw = jax.jit(functools.partial(sample, model), static_argnums=3)
    x = draw(key, params, stats, number, given)
    on_progress(1.0)
    return x


def pictures(model: Model, is_plane: bool) -> dict[str, Picture]:
    """Samples from the prior, reconstructions, and decoded points of the plane of two latents.

    Args:
      model: draws and decodes; p(x|z) is shown by its mean, or by a draw without a closed form.
      is_plane: True if z is [*batch, 2].
    """
    axis = normal_quantiles(GRID)

    def samples(key: Array, params: Any, stats: Any, batch: Batch) -> Array:
        del batch
        return sample(model, key, params, stats, SAMPLES)

    def class_samples(key: Array, params: Any, stats: Any, batch: Batch) -> Array:
        del stats, batch
        z_key, x_key = jax.random.split(key)
        label = class_rows.shown(model.classes)
        z = sample_from(model.prior(params, NOTHING_GIVEN), z_key, (class_rows.COLUMNS,))
        # Each class [C, 1] meets each z [COLUMNS, L].
        x = mean_or_draw(x_key, model.likelihood(params, z, Given(label=label[:, None])))
        return x.reshape(-1, x.shape[-1])

    def reconstructions(key: Array, params: Any, stats: Any, batch: Batch) -> Array:
        del stats
        given = given_of(batch)
        z_key, x_key = jax.random.split(key)
        z = sample_from(model.posterior(params, batch.x, given), z_key, ())
        return mean_or_draw(x_key, model.likelihood(params, z, given))

    def latent_grid(key: Array, params: Any, stats: Any, batch: Batch) -> Array:
        del stats, batch
        z = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
        return mean_or_draw(key, model.likelihood(params, jnp.asarray(z), NOTHING_GIVEN))

    sample_picture = Picture(samples, "Samples from the prior (means of p(x|z), if known)")
    if model.classes is not None:
        sample_picture = class_rows.picture(class_samples, model.classes, ", a column for each z")
    by_name = {
        "samples": sample_picture,
        "reconstructions": Picture(reconstructions, "Reconstructions", beside_inputs=True),
    }
    if is_plane:
        by_name["latent_grid"] = Picture(
            latent_grid, "Decoded points of the latent plane", axes=axis
        )
    return by_name


def normal_quantiles(number: int) -> np.ndarray:
    """The standard normal's quantiles at the middles of equal shares of its mass, [number]."""
    normal = statistics.NormalDist()
    return np.array([normal.inv_cdf((i + 0.5) / number) for i in range(number)], np.float32)
