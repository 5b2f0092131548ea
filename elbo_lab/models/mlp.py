"""Fully connected models with any number of stochastic layers (Burda et al. 2016, section 5).

One layer, latents (50,):   x -> 200-200 -> z;  z -> 200-200 -> x.
Two layers, (100, 50):      x -> 200-200 -> z1 -> 100-100 -> z2, and back by the same widths.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions import Chain, Distribution
from elbo_lab.models import common, conditions, laws, posteriors, priors
from elbo_lab.models.base import NOTHING_GIVEN, Given, Model, Params
from elbo_lab.models.networks import INITS, CriticMLP, DecoderMLP, GaussianMLP, Head, gaussian
from elbo_lab.options import option

# Rows that the evaluation decodes at once, where p(x|z) has one number for each value.
ROWS = 1000


@dataclasses.dataclass(frozen=True)
class MLPOptions:
    """Settings of `--model=mlp`."""

    latent_dims: tuple[int, ...] = option(
        (50,),
        "latent dimensions of each stochastic layer, from the data up, e.g. 100,50",
        least=1,
    )
    hidden_dims: tuple[int, ...] = option(
        (200, 200), "hidden widths between the data and the first stochastic layer", least=1
    )
    upper_hidden_dims: tuple[int, ...] = option(
        (100, 100), "hidden widths between two stochastic layers", least=1
    )
    activation: str = common.activation_option("tanh")
    scale: str = common.scale_option()
    likelihood: str = common.likelihood_option(
        "p(x|z): a mass of binary pixels (bernoulli) or of 8-bit levels (discretized_logistic, "
        "logistic_mixture, categorical), or a density, whose bounds do not compare with those of "
        "masses; all but bernoulli need --binarization=none"
    )
    likelihood_variance: float = common.likelihood_variance_option()
    likelihood_components: int = common.likelihood_components_option()
    posterior: str = common.posterior_option()
    posterior_rank: int = common.posterior_rank_option()
    posterior_depth: int = common.posterior_depth_option()
    posterior_width: tuple[int, ...] = common.posterior_width_option()
    posterior_min_kl: float = common.posterior_min_kl_option()
    prior: str = common.prior_option()
    prior_components: int = common.prior_components_option()
    prior_flow: str = common.prior_flow_option()
    prior_depth: int = common.prior_depth_option()
    prior_width: tuple[int, ...] = common.prior_width_option()
    output_bias: str = common.output_bias_option()
    init: str = option(
        "glorot",
        "start of the weights: Glorot's uniform law, every layer by a key of its own or all by "
        "the same one (as the IWAE paper's code does)",
        tuple(INITS),
    )
    center_inputs: bool = common.center_inputs_option()
    condition: str = common.condition_option()


def make(options: MLPOptions, spec: Spec) -> Model:
    """Gaussian layers; q(z|x), the top layer's prior and p(x|z) are those of the settings
    (`posteriors`, `priors`, `laws`).

    A model that is conditioned on labels is p(x|y, z_1), q(z_1|x, y) and p(z). Layers above the
    first are p(z_i|z_{i+1}) and q(z_{i+1}|z_i) as without labels: given z_1 they are independent of
    x and y.

    Args:
      options: the family's settings.
      spec: of the data, of any shape.

    Raises:
      ValueError: tokens; a law of levels for data without; a VampPrior of several layers, with
        labels or of flows; flows of several layers; a least KL where there is none
        (`posteriors.make`); a condition for data without labels.
    """
    if spec.kind == "token":
        raise ValueError("The model mlp takes images or real numbers, not tokens.")
    data_dim = spec.dim
    sizes = options.latent_dims  # (L_1, ..., L_n), from the data up
    classes = conditions.num_classes(options, spec)
    laws_of_z = [posteriors.make(options, size) for size in sizes]

    def block(features: int, hidden_dims: tuple[int, ...], *heads: Head) -> GaussianMLP:
        return GaussianMLP(features, hidden_dims, options.activation, options.scale, heads)

    # encoders[i] gives q(z_i | z_{i-1}) with z_0 = x; downwards[i] gives p(z_i | z_{i+1}).
    hidden_dims = [options.hidden_dims] + (len(sizes) - 1) * [options.upper_hidden_dims]
    encoders = [
        block(size, hidden, *law_of_z.heads)
        for size, hidden, law_of_z in zip(sizes, hidden_dims, laws_of_z, strict=True)
    ]
    downwards = [block(size, options.upper_hidden_dims) for size in sizes[:-1]]
    top = priors.make(options, sizes[-1], spec)
    law = laws.make(options, spec)
    decoder = DecoderMLP(data_dim, options.hidden_dims, law.heads, options.activation)

    def conditional(network: GaussianMLP, params: Params, distribution: Callable[..., Any]):
        return lambda z: distribution(*network.apply({"params": params}, z))

    def init(key: Array, batch: Batch, mean: Array | None = None) -> Params:
        chex.assert_shape(batch.x, (..., data_dim))
        common_key = jax.random.clone(key)  # for weights that are all drawn by the same key
        prior_key, posterior_key = common.latent_keys(key)
        keys = iter(jax.random.split(key, 2 * len(sizes)))
        inputs = (data_dim + (classes or 0), *sizes)

        def initial(network: GaussianMLP | DecoderMLP, size: int) -> Params:
            return network.init(next(keys), jnp.zeros(size))["params"]

        params = {
            "encoder": {_layer_name(i): initial(net, inputs[i]) for i, net in enumerate(encoders)},
            "decoder": initial(decoder, sizes[0] + (classes or 0)),
            "prior": {
                _layer_name(i): initial(net, sizes[i + 1]) for i, net in enumerate(downwards)
            },
        }
        params = INITS[options.init](common_key, params)
        params["prior"] |= top.init(prior_key, batch)
        # Gaussians have no parameters here, and flows are of one layer.
        params["encoder"] |= laws_of_z[0].init(posterior_key)
        common.start_at_mean(params, law, batch, mean, options.output_bias, options.center_inputs)
        return params

    def prior(params: Params, given: Given = NOTHING_GIVEN) -> Chain | object:
        highest = top.distribution(params["prior"], lambda x: posterior(params, x, given))
        if not downwards:
            return highest
        conditionals = [
            conditional(downwards[i], params["prior"][_layer_name(i)], gaussian)
            for i in reversed(range(len(downwards)))
        ]
        return Chain(highest, conditionals, downwards=True)

    def posterior(params: Params, x: Array, given: Given = NOTHING_GIVEN) -> Chain | object:
        layers = [
            conditional(
                encoders[i],
                params["encoder"][_layer_name(i)],
                functools.partial(law_of_z.distribution, params["encoder"]),
            )
            for i, law_of_z in enumerate(laws_of_z)
        ]
        if options.center_inputs:
            # A constant among the parameters: without a gradient, no step changes it.
            x = x - jax.lax.stop_gradient(params["encoder"]["center"])
        first = layers[0](conditions.beside(x, given, classes))
        return first if len(layers) == 1 else Chain(first, layers[1:])

    def likelihood(
        params: Params, z: Array | tuple[Array, ...], given: Given = NOTHING_GIVEN
    ) -> Distribution:
        # Otherwise an array of two draws would be unpacked as two layers.
        chex.assert_trees_all_equal_structs(z, sizes if len(sizes) > 1 else sizes[0])
        z_1 = z[0] if len(sizes) > 1 else z
        inputs = conditions.beside(z_1, given, classes)
        return law.distribution(*decoder.apply({"params": params["decoder"]}, inputs))

    return Model(
        init,
        prior,
        posterior,
        likelihood,
        rows=max(1, ROWS // law.numbers),
        critic=CriticMLP(options.hidden_dims, options.activation),
        classes=classes,
    )


def _layer_name(i: int) -> str:
    return f"layer_{i + 1}"
