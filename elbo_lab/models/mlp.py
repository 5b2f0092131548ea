"""Fully connected models with any number of stochastic layers (Burda et al. 2016, section 5).

One layer, latents (50,):   x -> 200-200 -> z;  z -> 200-200 -> x.
Two layers, (100, 50):      x -> 200-200 -> z1 -> 100-100 -> z2, and back by the same widths.
"""

import chex
import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.config import Config
from elbo_lab.distributions import Chain, Distribution
from elbo_lab.models.base import Model, Params
from elbo_lab.models.likelihoods import LIKELIHOODS
from elbo_lab.models.networks import INITS, GaussianMLP, gaussian

# Where the output bias starts.
OUTPUT_BIASES = ("train_mean", "zero")


def make(config: Config, data_dim: int) -> Model:
    """Gaussian layers, standard normal prior on the top layer; p(x|z) is one of `LIKELIHOODS`.

    Args:
      config: reads latent_dims, hidden_dims, upper_hidden_dims, activation, scale, likelihood,
        output_bias, init, center_inputs.
      data_dim: D, the number of pixels.
    """
    sizes = config.latent_dims  # (L_1, ..., L_n), from the data up

    def block(features: int, hidden_dims: tuple[int, ...]) -> GaussianMLP:
        return GaussianMLP(features, hidden_dims, config.activation, config.scale)

    # encoders[i] gives q(z_i | z_{i-1}) with z_0 = x; priors[i] gives p(z_i | z_{i+1}).
    encoders = [block(sizes[0], config.hidden_dims)]
    encoders += [block(size, config.upper_hidden_dims) for size in sizes[1:]]
    priors = [block(size, config.upper_hidden_dims) for size in sizes[:-1]]
    law = LIKELIHOODS[config.likelihood]
    decoder = law.network(data_dim, config.hidden_dims, config.activation)

    def conditional(network: GaussianMLP, params: Params):
        return lambda given: gaussian(*network.apply({"params": params}, given))

    def init(key: Array, x: Array) -> Params:
        chex.assert_shape(x, (..., data_dim))
        one_key = jax.random.clone(key)
        keys = iter(jax.random.split(key, 2 * len(sizes)))
        inputs = (data_dim, *sizes)

        def start(network, size: int) -> Params:
            return network.init(next(keys), jnp.zeros(size))["params"]

        params = {
            "encoder": {_layer(i): start(net, inputs[i]) for i, net in enumerate(encoders)},
            "decoder": start(decoder, sizes[0]),
            "prior": {_layer(i): start(net, sizes[i + 1]) for i, net in enumerate(priors)},
        }
        params = INITS[config.init](one_key, params)
        mean = jnp.mean(x.reshape(-1, data_dim), axis=0)
        if config.center_inputs:
            params["encoder"]["center"] = mean
        if config.output_bias == "train_mean":
            params["decoder"][law.head]["bias"] = law.bias(mean)
        return params

    def prior(params: Params) -> Chain | object:
        top = gaussian(jnp.zeros(sizes[-1]), jnp.ones(sizes[-1]))
        if not priors:
            return top
        downwards = [
            conditional(priors[i], params["prior"][_layer(i)]) for i in reversed(range(len(priors)))
        ]
        return Chain(top, downwards, downwards=True)

    def posterior(params: Params, x: Array) -> Chain | object:
        layers = [conditional(net, params["encoder"][_layer(i)]) for i, net in enumerate(encoders)]
        if config.center_inputs:
            # A constant that lies among the parameters: no gradient, so no step.
            x = x - jax.lax.stop_gradient(params["encoder"]["center"])
        first = layers[0](x)
        return first if len(layers) == 1 else Chain(first, layers[1:])

    def likelihood(params: Params, z: Array | tuple[Array, ...]) -> Distribution:
        # One array of two draws could pass for two layers.
        chex.assert_trees_all_equal_structs(z, sizes if len(sizes) > 1 else sizes[0])
        z_1 = z[0] if len(sizes) > 1 else z
        return law.distribution(decoder.apply({"params": params["decoder"]}, z_1))

    return Model(init, prior, posterior, likelihood)


def _layer(i: int) -> str:
    return f"layer_{i + 1}"
