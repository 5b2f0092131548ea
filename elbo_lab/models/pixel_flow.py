"""Flows of images: a density of real numbers, and a law of the noise that makes levels real.

The latent variable is v = level + u, u in [0, 1): its prior is the flow's density of v, q(v|x) the
law of the noise, and p(x|v) rounds down. The ELBO is the bound of Theis et al. (2016) for uniform
noise, and of Ho et al. (2019, Flow++, equation 12) for noise that is learned given x.
"""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions import Flow
from elbo_lab.distributions.dequantization import (
    Dequantized,
    Rounding,
    levels_of,
    range_of_levels,
    uniform_noise,
)
from elbo_lab.models import common, flows
from elbo_lab.models.base import Given, Model, Params
from elbo_lab.models.networks import DecoderMLP, Head
from elbo_lab.options import option

# Rows (draws x examples) that the evaluation computes at once.
ROWS = 500


@dataclasses.dataclass(frozen=True)
class FlowOptions:
    """Settings of `--model=flow`."""

    dequantization: str = option(
        "uniform",
        "noise in [0, 1) that is added to levels: uniform, or learned given the image",
        ("uniform", "variational"),
    )
    prior_flow: str = common.prior_flow_option()
    prior_depth: int = common.prior_depth_option()
    prior_width: tuple[int, ...] = common.prior_width_option()
    noise_depth: int = option(2, "affine couplings of --dequantization=variational", least=0)
    noise_width: tuple[int, ...] = option(
        (200,), "hidden widths of the networks of --dequantization=variational", least=1
    )
    activation: str = common.activation_option("relu")


def make(options: FlowOptions, spec: Spec) -> Model:
    """A flow's density of v = level + u, uniform or learned noise u, and x by rounding down.

    Args:
      options: the family's settings.
      spec: of images with levels.

    Raises:
      ValueError: other data.
    """
    if spec.kind != "image" or spec.levels is None:
        raise ValueError(
            f"model=flow needs images with levels, to which noise is added; got "
            f"{common.shown(spec)}."
        )
    size, width = spec.dim, options.noise_width
    step = flows.PRIOR_STEPS[options.prior_flow](size, options.prior_width, options.activation)
    noise_step = flows.affine(size, width, options.activation, context_size=width[0])
    # Weights of zero: the noise starts as uniform.
    heads = [
        Head("shift", zero_weights=True),
        Head("log_scale", zero_weights=True),
        Head("context", size=width[0]),
    ]
    encoder = DecoderMLP(size, width, heads, options.activation)
    is_learned = options.dequantization == "variational"

    def init(key: Array, batch: Batch, mean: Array | None = None) -> Params:
        chex.assert_shape(batch.x, (..., size))
        prior_key, encoder_key, noise_key = jax.random.split(key, 3)
        params = {
            "encoder": {},
            "decoder": {},
            "prior": {"flow": flows.init(step, options.prior_depth, prior_key)},
        }
        if is_learned:
            params["encoder"] = {
                "network": encoder.init(encoder_key, jnp.zeros((1, size)))["params"],
                "flow": flows.init(noise_step, options.noise_depth, noise_key),
            }
        return params

    def prior(params: Params, given: Given) -> Flow:
        contexts = [None] * options.prior_depth
        maps = flows.bijections(step, params["prior"]["flow"], contexts)
        # The logistic law, as in NICE (Dinh et al. 2015): its tails are exponential, so that a
        # value far from what training saw costs nats in proportion. By the logit of the levels it
        # is uniform on their range.
        base = dist.Logistic(jnp.zeros(size), jnp.ones(size)).to_event(1)
        return Flow(base, (*maps, range_of_levels(spec.levels)))

    def posterior(params: Params, x: Array, given: Given) -> Dequantized:
        level = levels_of(x, spec)
        if not is_learned:
            return Dequantized(level, uniform_noise(level.shape))
        own = params["encoder"]
        shift, log_scale, context = encoder.apply({"params": own["network"]}, 2 * x - 1)
        base = dist.Logistic(shift, jnp.exp(flows.bounded(log_scale))).to_event(1)
        maps = flows.bijections(noise_step, own["flow"], [context] * options.noise_depth)
        return Dequantized(level, Flow(base, maps))

    def likelihood(params: Params, v: Array, given: Given) -> Rounding:
        return Rounding(v, spec)

    return Model(init, prior, posterior, likelihood, rows=ROWS)
