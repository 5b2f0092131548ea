"""The contract between methods and everything that trains, evaluates or reports."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from elbo_lab.data.dataset import Spec


class Loss(NamedTuple):
    """The objective of a step for each example of a batch, its terms, and what updates stats."""

    loss: Array  # [B]
    terms: dict[str, Array]  # name -> [B], for the training curves
    observed: Any = ()  # arrays [B, ...] for `Method.update`; () if the method has none


class Picture(NamedTuple):
    """Images that a method shows."""

    # (key, params, stats, batch) -> [n, D], as grey levels or colours in [0, 1]
    draw: Callable[..., Array]
    title: str
    # True: the n images are made from the first n of the batch, and are shown below them.
    beside_inputs: bool = False
    # [m]: the m^2 images are decoded from a square grid with these values on both axes of a plane
    axes: np.ndarray | None = None
    columns: int = 10  # images in a row of the figure
    rows: tuple[str, ...] = ()  # the name of each row; (): they have none


class Method(NamedTuple):
    """A model with its objective, the only thing that loop, evaluation and reports know of a run.

    `stats` is state that no gradient moves, such as a codebook's moving averages; () if there is
    none. Params and stats are pytrees of arrays. A step takes the gradient of `loss`, for the batch
    at once or in parts, and then calls `update` once, with what was observed of the whole batch.
    """

    # (key, batch, mean=None) -> (params, stats). The batch is the first rows of the training data,
    # the same for all replicates. mean [D]: of all training data; None: the batch's is taken.
    init: Callable[..., tuple[Any, Any]]
    # (key, params, stats, batch, hparams) -> Loss. hparams: {name: []}, the traced settings.
    loss: Callable[..., Loss]
    # The names of the terms of `loss`, and of `update`; the first is the one that progress shows.
    terms: tuple[str, ...]
    # (key, params, stats, batch) -> {quantity: [B, ...]}; `evaluation.quantities` explains the
    # names. Draws stream inside, so that memory does not grow with their number.
    measure: Callable[..., dict[str, Array]]
    measure_batch: int  # examples that `measure` takes at once: decides keys and memory
    pictures: dict[str, Picture]
    headline: str | None  # the quantity that sweeps compare; None: sweeps compare nothing
    # (key, params, stats, batch) -> {"means_1": [B, L_1], ...}: E_q[z_i|x] of each layer, for
    # counting active units over training examples
    layer_means: Callable[..., dict[str, Array]] | None = None
    # (key, params, stats, number, given=NOTHING_GIVEN, on_progress=...) -> draws x [number, D];
    # where it is conditioned on labels, given has one for all draws [], or one for each [number];
    # compiled inside, and on_progress is called with the fraction that is done
    sample: Callable[..., Array] | None = None
    # (params, stats, batch) -> features [B, L] (float32) or codes [B, M] (int32)
    encode: Callable[..., Array] | None = None
    # (params, stats, batch) -> q(z|x); None: the model has none
    posterior: Callable[..., Any] | None = None
    # (params, stats, given) -> p(z); None: the model has none
    prior: Callable[..., Any] | None = None
    # (params, stats, codes or features, given) -> p(x|.)
    decode: Callable[..., Any] | None = None
    # The levels of the codes that `encode` returns side by side; (): it returns features.
    code_specs: tuple[Spec, ...] = ()
    # What may help a run that diverged, for the error message.
    remedy: str = "a lower --learning_rate or --clip_norm may help"
    # The number of terms, from the first, whose means stand in tables of results.
    tabled_terms: int = 1
    classes: int | None = None  # C, of the labels that it is conditioned on; None: on none
    # (key, params, stats, batch) -> log p(x|y) of every class y, [B, C], whatever the labels:
    # "log_px_y" if it is exact, "log_likelihood_y" if it is L_K; None: without labels
    measure_classes: Callable[..., dict[str, Array]] | None = None
    # Examples whose gradient a step on a CPU computes at once, one part of the batch after the
    # other, so that their activations fit its cache. None: the whole batch, as it has to be where
    # the loss of an example depends on the others.
    gradient_batch: int | None = None
    # (key, params, stats, observed) -> (stats, {name: []}): the stats after a batch, and terms that
    # are numbers of the whole batch. Params and stats are those before the step; observed is the
    # loss's, [B, ...] of the whole batch. None: no step changes the stats.
    update: Callable[..., tuple[Any, dict[str, Array]]] | None = None
