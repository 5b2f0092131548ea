"""Settings and steps of initialization that several model families share, each said once.

The function of a setting returns a dataclass field, since every family has its own order of
settings. It takes the default where the families differ in it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.models.base import Params
from elbo_lab.models.conditions import CONDITIONS, NONE
from elbo_lab.models.flows import PRIOR_STEPS
from elbo_lab.models.laws import LIKELIHOODS, Likelihood
from elbo_lab.models.networks import ACTIVATIONS, NORMS, SCALES, ConvSettings, image_shape
from elbo_lab.models.posteriors import POSTERIORS
from elbo_lab.models.priors import PRIORS
from elbo_lab.options import option

# Where the output bias starts.
OUTPUT_BIASES = ("train_mean", "zero")
# Folded into the key of initialization for those of the parameters of p(z), and of q(z|x) beside
# the network's.
_PRIOR, _POSTERIOR = 1, 2


def activation_option(default: str) -> Any:
    """The field `activation`, of type str."""
    return option(default, "of the hidden layers", tuple(ACTIVATIONS))


def scale_option() -> Any:
    """The field `scale`, of type str."""
    return option(
        "log_std",
        "what a Gaussian's scale output is: log sigma, log sigma^2, softplus's sigma^2",
        tuple(SCALES),
    )


def likelihood_option(help: str = "p(x|z)") -> Any:
    """The field `likelihood`, of type str."""
    return option("bernoulli", help, tuple(LIKELIHOODS))


def likelihood_variance_option() -> Any:
    """The field `likelihood_variance`, of type float."""
    return option(0.01, "variance of p(x|z) of --likelihood=gaussian_fixed", above=0)


def likelihood_components_option() -> Any:
    """The field `likelihood_components`, of type int."""
    return option(5, "components of each pixel's mixture of --likelihood=logistic_mixture", least=1)


def posterior_option() -> Any:
    """The field `posterior`, of type str."""
    return option(
        "diagonal",
        "covariance of q(z|x) in each layer: diagonal, full (by a Cholesky factor), or a diagonal "
        "and a matrix of rank --posterior_rank; or an inverse autoregressive flow of one layer",
        POSTERIORS,
    )


def posterior_rank_option() -> Any:
    """The field `posterior_rank`, of type int."""
    return option(1, "rank of the covariance beside the diagonal of --posterior=lowrank", least=1)


def posterior_depth_option() -> Any:
    """The field `posterior_depth`, of type int."""
    return option(2, "steps of the flow of --posterior=iaf", least=1)


def posterior_width_option() -> Any:
    """The field `posterior_width`, of type tuple[int, ...]."""
    return option((200,), "hidden widths of each step of the flow of --posterior=iaf", least=1)


def posterior_min_kl_option() -> Any:
    """The field `posterior_min_kl`, of type float."""
    return option(
        0.0,
        "least KL(q(z_l|x) || N(0, 1)) of each latent dimension l, nats, which the form of a "
        "diagonal q(z|x) guarantees (delta-VAE); 0: a Gaussian of any mean and variance",
        least=0,
        most=10,
    )


def prior_option() -> Any:
    """The field `prior`, of type str."""
    return option(
        "standard",
        "p(z) of the highest layer: standard normal, a learned mixture of Gaussians, VampPrior "
        "(the mixture of q(z|u) over learned inputs u), or a learned flow",
        tuple(PRIORS),
    )


def prior_flow_option() -> Any:
    """The field `prior_flow`, of type str."""
    return option(
        "maf",
        "steps of a flow as prior: masked autoregressive ones, whose draws take one pass for each "
        "dimension, affine couplings, or rational-quadratic spline couplings",
        tuple(PRIOR_STEPS),
    )


def prior_depth_option() -> Any:
    """The field `prior_depth`, of type int."""
    return option(4, "steps of a flow as prior", least=1)


def prior_width_option() -> Any:
    """The field `prior_width`, of type tuple[int, ...]."""
    return option((200,), "hidden widths of each step of a flow as prior", least=1)


def prior_components_option() -> Any:
    """The field `prior_components`, of type int."""
    return option(20, "components of --prior=mixture, or learned inputs of --prior=vamp", least=1)


def output_bias_option() -> Any:
    """The field `output_bias`, of type str."""
    return option(
        "train_mean",
        "start of the output bias: where p(x|z) has the training mean, or zero",
        OUTPUT_BIASES,
    )


def center_inputs_option() -> Any:
    """The field `center_inputs`, of type bool."""
    return option(False, "subtract the training mean from what the inference network sees")


def condition_option() -> Any:
    """The field `condition`, of type str."""
    return option(
        NONE,
        "what the model is conditioned on: nothing, or the label of each example, p(x|y)",
        CONDITIONS,
    )


def channels_option() -> Any:
    """The field `channels`, of type tuple[int, ...]."""
    return option((32, 64), "channels after each convolution that halves height and width", least=1)


def residual_blocks_option(default: int) -> Any:
    """The field `residual_blocks`, of type int."""
    return option(
        default,
        "residual blocks (3 x 3 and 1 x 1 convolutions) on the coarsest grid",
        least=0,
        most=100,
    )


def norm_option() -> Any:
    """The field `norm`, of type str."""
    return option("none", "normalization between convolution and activation", NORMS)


def gated_width_option() -> Any:
    """The field `width` of gated masked convolutions, of type int."""
    return option(16, "features of the vertical and of the horizontal stack", least=1)


def output_width_option() -> Any:
    """The field `output_width`, of type int."""
    return option(32, "features between the two 1 x 1 output layers", least=1)


def token_embedding_option() -> Any:
    """The field `embedding_dim` of a network of pixels, of type int."""
    return option(16, "of the embedding of a token", least=1)


def one_layer(family: str, latent_dims: tuple[int, ...]) -> int:
    """L, the latent dimension of a family with one stochastic layer.

    Raises:
      ValueError: several layers.
    """
    if len(latent_dims) != 1:
        shown = ",".join(map(str, latent_dims))
        raise ValueError(f"latent_dims={shown}: the model {family} has one layer of latents.")
    return latent_dims[0]


def shown(spec: Spec) -> str:
    """The kind of data that a family refuses, and how to make them others, for messages."""
    if spec.levels is not None:
        return f"{spec.kind} data with {spec.levels} levels"
    if spec.kind == "image":
        return "images of real numbers, which binarization=dynamic, fixed or threshold makes binary"
    return "real numbers"


def latent_keys(key: Array) -> tuple[Array, Array]:
    """Keys of the parameters of p(z), and of those of q(z|x) beside its network's.

    Args:
      key: of the model's initialization; it may be used again for the networks.
    """
    prior_key, posterior_key = (
        jax.random.fold_in(jax.random.clone(key), number) for number in (_PRIOR, _POSTERIOR)
    )
    return prior_key, posterior_key


def conv_settings(family: str, options: Any, spec: Spec) -> ConvSettings:
    """The settings of a convolutional family's networks.

    Args:
      family: the model's name, for messages.
      options: has the fields channels, activation, norm and residual_blocks.
      spec: of images (H, W) or (H, W, C).

    Raises:
      ValueError: data that are not images, or no channels.
    """
    if spec.kind == "token":
        raise ValueError(f"The model {family} takes images, not tokens.")
    image_shape(spec.shape)
    if not options.channels:
        raise ValueError(f"channels is empty: the model {family} has one convolution at least.")
    return ConvSettings(
        spec.shape, options.channels, options.activation, options.norm, options.residual_blocks
    )


def start_at_mean(
    params: Params,
    law: Likelihood,
    batch: Batch,
    mean: Array | None,
    output_bias: str,
    center_inputs: bool = False,
) -> None:
    """Starts what depends on the mean of the training data, in the parameters: the output bias, and
    the constant that is subtracted from the inference network's input.

    Args:
      params: of the model; changed in place.
      law: of p(x|z).
      batch: the first rows of the training data, x [*batch, D].
      mean: [D], of all training data; None: the batch's is taken.
      output_bias: one of `OUTPUT_BIASES`.
      center_inputs: True to store the mean as `params["encoder"]["center"]`.
    """
    if mean is None:
        mean = jnp.mean(batch.x.reshape(-1, batch.x.shape[-1]), axis=0)
    if center_inputs:
        params["encoder"]["center"] = mean
    if output_bias == "train_mean":
        law.start_bias(params["decoder"], mean)
