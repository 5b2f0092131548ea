"""Sigmoid belief networks: any number of layers of binary units (Neal 1992; Mnih and Gregor 2014).

z_n ~ Bernoulli(sigmoid(b)),  z_i | z_{i+1} ~ Bernoulli(sigmoid(f_i(z_{i+1}))),  x | z_1 ~ a law
of `LIKELIHOODS`;  q(z_1|x) and q(z_{i+1}|z_i) likewise. Every f is linear, or an MLP.
"""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions import BernoulliVector, Chain, Distribution
from elbo_lab.distributions.pixels import MOST_UNITS
from elbo_lab.models import common, enumeration, laws
from elbo_lab.models.base import NOTHING_GIVEN, Given, Model, Params
from elbo_lab.models.networks import DecoderMLP, Head
from elbo_lab.options import option

# Rows that the evaluation computes at once for a law of one number for each value of x.
ROWS = 1000
_LOGITS = (Head("logits"),)


@dataclasses.dataclass(frozen=True)
class SBNOptions:
    """Settings of `--model=sbn`."""

    latent_dims: tuple[int, ...] = option(
        (200,), "binary units of each stochastic layer, from the data up, e.g. 200,200", least=1
    )
    hidden_dims: tuple[int, ...] = option(
        (),
        "hidden widths of every network between two layers; none: linear",
        least=1,
        may_be_empty=True,
    )
    activation: str = common.activation_option("tanh")
    likelihood: str = common.likelihood_option()
    likelihood_variance: float = common.likelihood_variance_option()
    likelihood_components: int = common.likelihood_components_option()
    output_bias: str = common.output_bias_option()
    center_inputs: bool = common.center_inputs_option()


def make(options: SBNOptions, spec: Spec) -> Model:
    """Binary layers, a learned law of the top layer; p(x|z_1) is one of `LIKELIHOODS`.

    With at most `pixels.MOST_UNITS` units the model has an exact `log_px`.

    Args:
      options: the family's settings.
      spec: of the data, of any shape.

    Raises:
      ValueError: tokens; a law of levels for data without.
    """
    if spec.kind == "token":
        raise ValueError("The model sbn takes images or real numbers, not tokens.")
    data_dim = spec.dim
    sizes = options.latent_dims  # (L_1, ..., L_n), from the data up

    def block(features: int) -> DecoderMLP:
        return DecoderMLP(features, options.hidden_dims, _LOGITS, options.activation)

    # encoders[i] gives q(z_i | z_{i-1}) with z_0 = x; priors[i] gives p(z_i | z_{i+1}).
    encoders = [block(size) for size in sizes]
    priors = [block(size) for size in sizes[:-1]]
    law = laws.make(options, spec)
    decoder = DecoderMLP(data_dim, options.hidden_dims, law.heads, options.activation)

    def conditional(network: DecoderMLP, params: Params):
        return lambda z: BernoulliVector(*network.apply({"params": params}, z))

    def init(key: Array, batch: Batch, mean: Array | None = None) -> Params:
        chex.assert_shape(batch.x, (..., data_dim))
        keys = iter(jax.random.split(key, 2 * len(sizes)))
        inputs = (data_dim, *sizes)

        def initial(network: DecoderMLP, size: int) -> Params:
            return network.init(next(keys), jnp.zeros(size))["params"]

        params = {
            "encoder": {_layer_name(i): initial(net, inputs[i]) for i, net in enumerate(encoders)},
            "decoder": initial(decoder, sizes[0]),
            "prior": {_layer_name(i): initial(net, sizes[i + 1]) for i, net in enumerate(priors)},
        }
        params["prior"]["top"] = {"logits": jnp.zeros(sizes[-1])}
        common.start_at_mean(params, law, batch, mean, options.output_bias, options.center_inputs)
        return params

    def prior(params: Params, given: Given = NOTHING_GIVEN) -> Distribution:
        del given
        top = BernoulliVector(params["prior"]["top"]["logits"])
        if not priors:
            return top
        downwards = [
            conditional(priors[i], params["prior"][_layer_name(i)])
            for i in reversed(range(len(priors)))
        ]
        return Chain(top, downwards, downwards=True)

    def posterior(params: Params, x: Array, given: Given = NOTHING_GIVEN) -> Distribution:
        del given
        layers = [
            conditional(net, params["encoder"][_layer_name(i)]) for i, net in enumerate(encoders)
        ]
        if options.center_inputs:
            # A constant among the parameters: without a gradient, no step changes it.
            x = x - jax.lax.stop_gradient(params["encoder"]["center"])
        first = layers[0](x)
        return first if len(layers) == 1 else Chain(first, layers[1:])

    def law_of_x(params: Params, z_1: Array) -> Distribution:
        return law.distribution(*decoder.apply({"params": params["decoder"]}, z_1))

    def likelihood(
        params: Params, z: Array | tuple[Array, ...], given: Given = NOTHING_GIVEN
    ) -> Distribution:
        del given
        # Otherwise an array of two draws would be unpacked as two layers.
        chex.assert_trees_all_equal_structs(z, sizes if len(sizes) > 1 else sizes[0])
        return law_of_x(params, z[0] if len(sizes) > 1 else z)

    def log_px(params: Params, x: Array, given: Given = NOTHING_GIVEN) -> Array:
        decode = functools.partial(law_of_x, params)
        return enumeration.log_px(prior(params, given), decode, sizes, x)

    is_enumerable = sum(sizes) <= MOST_UNITS
    exact = log_px if is_enumerable else None
    rows = max(1, ROWS // law.numbers)
    return Model(init, prior, posterior, likelihood, exact, rows, is_discrete=True)


def _layer_name(i: int) -> str:
    return f"layer_{i + 1}"
