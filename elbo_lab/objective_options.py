"""Settings of each objective: the arguments that are specific to its function.

Names and defaults match the function's signature.
"""

import dataclasses
import inspect
import math
from collections.abc import Mapping
from typing import Any

from elbo_lab import losses
from elbo_lab.losses.catalogue import KL_BY_DRAWS
from elbo_lab.losses.common import BY_DRAWS, KL_MODES, WITHOUT_LOG_Q
from elbo_lab.losses.two_targets import RWS_PHASES
from elbo_lab.options import Hyper, option

# The losses of a GAN; see `methods.gan`.
NONSATURATING, WASSERSTEIN = GAN_LOSSES = ("nonsaturating", "wasserstein")

_KL = (
    "the KL term, from the draws (mc) or in closed form (analytic); not given: mc where there is "
    "no closed form"
)
_GROUP_SIZE = "neighbouring latent dimensions in a group; with --kl=mc all of them"
_MIN_KL = "lambda, the KL in nats per group that costs nothing"


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Settings of an objective that has none."""


@dataclasses.dataclass(frozen=True)
class ELBOOptions:
    """Settings of `elbo`."""

    kl: str = option("mc", _KL, KL_MODES)


@dataclasses.dataclass(frozen=True)
class BetaVAEOptions:
    """Settings of `beta_vae`."""

    beta: Hyper = option(4.0, "weight of the KL", least=0, traced=True)
    kl: str = option("analytic", _KL, KL_MODES)


@dataclasses.dataclass(frozen=True)
class CIWAEOptions:
    """Settings of `ciwae`."""

    beta: Hyper = option(
        0.5, "weight of the ELBO beside the IWAE bound", least=0, most=1, traced=True
    )


@dataclasses.dataclass(frozen=True)
class RenyiOptions:
    """Settings of `renyi`."""

    alpha: Hyper = option(
        0.5,
        "order; -inf for the greatest log-weight, inf for the least",
        traced=True,
        infinite=True,
    )


@dataclasses.dataclass(frozen=True)
class JackknifeOptions:
    """Settings of `jackknife`."""

    order: int = option(1, "order m, less than k", least=0)


@dataclasses.dataclass(frozen=True)
class TVOOptions:
    """Settings of `tvo`."""

    partition: int | tuple[float, ...] = option(
        5, "steps of equal length, or points that rise from 0 to 1 as 0,0.1,1"
    )


@dataclasses.dataclass(frozen=True)
class CapacityVAEOptions:
    """Settings of `capacity_vae`."""

    gamma: Hyper = option(30.0, "weight of the KL's distance to the capacity", least=0, traced=True)
    capacity: Hyper = option(0.0, "C, nats", least=0, traced=True)


@dataclasses.dataclass(frozen=True)
class FreeBitsOptions:
    """Settings of `free_bits` and `free_bits_batch`."""

    min_kl: Hyper = option(0.1, _MIN_KL, least=0, traced=True)
    group_size: int = option(1, _GROUP_SIZE, least=1)
    kl: str = option("analytic", _KL, KL_MODES)


@dataclasses.dataclass(frozen=True)
class LambdaVAEOptions:
    """Settings of `lambda_vae`."""

    regularization: Hyper = option(
        1.0, "lambda, weight of the KL and variance of p(x|z)", above=0, traced=True
    )
    kl: str = option("analytic", _KL, KL_MODES)


@dataclasses.dataclass(frozen=True)
class BetaTCVAEOptions:
    """Settings of `beta_tcvae`."""

    beta: Hyper = option(6.0, "weight of the total correlation", least=0, traced=True)


@dataclasses.dataclass(frozen=True)
class DIPVAEIOptions:
    """Settings of `dip_vae_i`."""

    lambda_off: Hyper = option(10.0, "weight of squared covariances", least=0, traced=True)
    lambda_diag: Hyper = option(
        100.0, "weight of squared distances of variances to one", least=0, traced=True
    )
    kl: str = option("analytic", _KL, KL_MODES)


@dataclasses.dataclass(frozen=True)
class DIPVAEIIOptions(DIPVAEIOptions):
    """Settings of `dip_vae_ii`."""

    lambda_diag: Hyper = option(
        10.0, "weight of squared distances of variances to one", least=0, traced=True
    )


@dataclasses.dataclass(frozen=True)
class InfoVAEOptions:
    """Settings of `info_vae`."""

    kl_weight: Hyper = option(0.0, "1 - alpha of InfoVAE", least=0, traced=True)
    mmd_weight: Hyper = option(100.0, "alpha + lambda - 1 of InfoVAE", least=0, traced=True)
    kl: str = option("analytic", _KL, KL_MODES)


@dataclasses.dataclass(frozen=True)
class CUBOOptions:
    """Settings of `cubo`."""

    power: Hyper = option(2.0, "n", least=1, traced=True)


@dataclasses.dataclass(frozen=True)
class RWSOptions:
    """Settings of `rws`."""

    phase: str = option("wake", "how the inference network is trained", RWS_PHASES)


@dataclasses.dataclass(frozen=True)
class GANOptions:
    """Settings of `gan`."""

    gan_loss: str = option(
        NONSATURATING, "of a GAN: nonsaturating, or Wasserstein with a gradient penalty", GAN_LOSSES
    )
    gradient_penalty: Hyper = option(
        10.0, "lambda, weight of the penalty of --gan_loss=wasserstein", least=0, traced=True
    )


_WITH_OPTIONS: dict[str, type] = {
    "elbo": ELBOOptions,
    "beta_vae": BetaVAEOptions,
    "ciwae": CIWAEOptions,
    "renyi": RenyiOptions,
    "jackknife": JackknifeOptions,
    "tvo": TVOOptions,
    "capacity_vae": CapacityVAEOptions,
    "free_bits": FreeBitsOptions,
    "lambda_vae": LambdaVAEOptions,
    "free_bits_batch": FreeBitsOptions,
    "beta_tcvae": BetaTCVAEOptions,
    "dip_vae_i": DIPVAEIOptions,
    "dip_vae_ii": DIPVAEIIOptions,
    "info_vae": InfoVAEOptions,
    "cubo": CUBOOptions,
    "rws": RWSOptions,
    "gan": GANOptions,
}
# The objectives that are no functions of `losses` and take no draws of z for each x; see
# `methods.autoencoder` and `methods.gan`.
AUTOENCODER, GAN = WITHOUT_DRAWS = ("autoencoder", "gan")
# The class of settings of every objective that `--objective` accepts.
OBJECTIVE_OPTIONS: dict[str, type] = {
    name: _WITH_OPTIONS.get(name, NoOptions) for name in (*losses.OBJECTIVES, *WITHOUT_DRAWS)
}


def arguments(objective: str | None) -> Mapping[str, inspect.Parameter]:
    """The arguments of the objective's function, by name; none if `losses` has no such function."""
    if objective not in losses.OBJECTIVES:
        return {}
    return inspect.signature(losses.OBJECTIVES[objective]).parameters


def has_closed_kl(model: str, settings: Mapping[str, Any]) -> bool:
    """True if KL(q(z|x) || p(z)) has a closed form, by a family's name and its settings."""
    return (
        model != "flow"
        and settings.get("posterior") != "iaf"
        and settings.get("prior", "standard") == "standard"
        and len(settings.get("latent_dims", ())) < 2
    )


def with_drawn_kl(
    model: str, defaults: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The given settings, and those of a KL from draws that depend on others, where not given.

    Without a closed form `kl` is mc, and with mc `group_size` is all latent dimensions.

    Args:
      model: the family.
      defaults: of all settings of the family and the objective.
      given: some of these settings, that were chosen.
    """
    settings = dict(given)
    if "kl" in defaults and not has_closed_kl(model, {**defaults, **given}):
        settings.setdefault("kl", "mc")
    if "group_size" in defaults and settings.get("kl") == "mc":
        settings.setdefault("group_size", sum({**defaults, **given}.get("latent_dims", ())))
    return settings


def estimators_of(objective: str | None, settings: Any) -> tuple[str, ...]:
    """The estimators that go with an objective and its settings, in the catalogue's order.

    Args:
      objective: a name in `OBJECTIVE_OPTIONS`, or None.
      settings: an instance of the objective's class of settings.

    Returns:
      Names in `losses.ESTIMATORS`; () for an objective with a gradient of its own, or none.
    """
    entry = losses.CATALOGUE.get(objective)
    names = () if entry is None else entry.estimators
    if getattr(settings, "kl", None) == "analytic":
        names = tuple(name for name in names if name in WITHOUT_LOG_Q)
    if getattr(settings, "kl", None) == "mc" and objective in KL_BY_DRAWS:
        names = BY_DRAWS
    if getattr(settings, "alpha", None) in (-math.inf, math.inf):
        # The greatest or the least log-weight has no continuous derivative.
        names = tuple(name for name in names if name != "dreg")
    return names
