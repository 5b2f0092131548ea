"""The contract between models and everything else."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from elbo_lab.data.dataset import Batch

Params = dict[str, Any]


class Given(NamedTuple):
    """The conditions of a model's distributions besides x or z.

    Batch dimensions align with the trailing ones of z; models broadcast them explicitly.
    """

    label: Array | None = None  # [*batch], int32
    context: Array | None = None  # [*batch, M]
    key: Array | None = None  # for dropout; None: no dropout, as in evaluation


NOTHING_GIVEN = Given()


def given_of(batch: Batch, key: Array | None = None) -> Given:
    """The conditions of a batch's distributions; without a key there is no dropout."""
    return Given(batch.label, batch.context, key)


class Density(NamedTuple):
    """A model with an exact p(x): PixelCNN, flows, mixtures."""

    init: Callable[..., Params]
    """(key, batch, mean=None) -> params; as in `Model`."""

    distribution: Callable[..., Any]
    """(params, stats, given) -> p(x|.) with log_prob and sample; x is [*any, D]."""

    classes: int | None = None
    """C, the classes of the labels on which p(x|y) is conditioned; None: it is p(x)."""

    gradient_batch: int | None = None
    """Examples whose gradient is computed at once on a CPU: their activations should fit its cache.
    None: as many as there are."""


class Model(NamedTuple):
    """A latent-variable model as pure functions, valid for any leading batch dimensions.

    Params are {"encoder": ..., "decoder": ..., "prior": ...}. With several stochastic layers z is a
    tuple ordered from the data upwards, and prior and posterior are `distributions.Chain`s. The
    functions take batches as they are: never return a distribution out of `jax.vmap` (NumPyro's
    would keep a stale batch shape). `given` is a `Given`; a model that is conditioned on nothing
    ignores it.
    """

    init: Callable[..., Params]
    """(key, batch, mean=None) -> params. batch: a `Batch`, the first rows of the training data, the
    same for all replicates. mean [D]: the mean of all training data, at which an output bias may
    start; None: the batch's mean is taken."""

    prior: Callable[..., Any]
    """(params, given) -> p(z|y), batch shape () or [*batch]."""

    posterior: Callable[..., Any]
    """(params, x [*batch, D], given) -> q(z|x, y), batch shape [*batch]: the inference network."""

    likelihood: Callable[..., Any]
    """(params, z [*batch, L], given) -> p(x|z, y), batch shape [*batch], event [D]: the generation
    network."""

    log_px: Callable[..., Array] | None = None
    """(params, x [*batch, D], given) -> log p(x|y) [*batch], nats; None: there is no exact one."""

    rows: int = 1000
    """Rows (draws x examples) that the evaluation lets the generation network see at once: their
    activations should fit a CPU's cache."""

    is_discrete: bool = False
    """True if z takes discrete values: its draws have no derivative, and z fills no plane."""

    critic: Any = None
    """The discriminator of a GAN, a Flax module x [*batch, D] -> [*batch, 1] of the inference
    network's layers; None: there is none."""

    classes: int | None = None
    """C, the classes of the labels on which p(x|z, y) and q(z|x, y) are conditioned; None: none."""

    gradient_batch: int | None = None
    """As in `Density`."""
