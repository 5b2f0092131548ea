"""Networks of a VQ-VAE (van den Oord et al. 2017): images to vectors, codes to p(x|codes)."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from elbo_lab.models.base import Params
from elbo_lab.options import option


class Quantized(NamedTuple):
    """The networks on both sides of a codebook, as pure functions; `methods.vqvae` trains them.

    Params are {"encoder": ..., "decoder": ...}: the codebook is the method's. M is the number of
    codes of an example, the product of `code_shape`; E is `code_dim`.
    """

    init: Callable[..., Params]
    """(key, batch, mean=None) -> params; as in `Model`."""

    encode: Callable[..., Any]
    """(params, x [*batch, D], given) -> vectors [*batch, M, E], one for each code."""

    likelihood: Callable[..., Any]
    """(params, vectors [*batch, M, E], given) -> p(x|vectors), batch shape [*batch], event [D]."""

    code_shape: tuple[int, ...]  # (h, w)
    num_codes: int  # K
    code_dim: int  # E


@dataclasses.dataclass(frozen=True)
class VQVAEOptions:
    """Settings of the family `vqvae`."""

    num_codes: int = option(128, "K, vectors of the codebook", least=1)
    code_dim: int = option(32, "E, dimension of the vectors of the codebook", least=1)
    codebook: str = option(
        "ema",
        "how the codebook is trained: moving averages of the encoder's outputs, or a loss",
        choices=("ema", "loss"),
    )
    codebook_decay: float = option(
        0.99, "decay of the moving averages of the codebook and of its use", least=0, most=1
    )
    commitment: float = option(
        0.25, "weight of the squared distances of encoder outputs to codes", least=0, traced=True
    )
    restart_below: float = option(
        0.1,
        "codes used less than this part of an equal share are replaced by encoder outputs; 0: none",
        least=0,
        most=1,
    )
