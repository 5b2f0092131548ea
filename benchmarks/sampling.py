"""Time of drawing images pixel by pixel: with a state between pixels, and by the logits of the
whole image for each value.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.peers.ours import SPEC
from benchmarks.workers import in_turns, spread
from elbo_lab import configs, models
from elbo_lab.data import Batch, Spec
from elbo_lab.models import NOTHING_GIVEN

# Images that are drawn at once.
NUM_IMAGES = 64
# Label -> settings; what is not given has its default.
MODELS = {
    "PixelCNN": {"model": "pixelcnn"},
    "PixelRNN, row LSTM": {"model": "pixelrnn", "rnn": "row"},
    "PixelRNN, diagonal BiLSTM": {"model": "pixelrnn", "rnn": "diagonal"},
}


def measure_sampling(
    label: str,
    settings: dict[str, Any],
    rounds: int,
    number: int = NUM_IMAGES,
    spec: Spec = SPEC,
) -> dict[str, Any]:
    """Milliseconds of an image drawn by a model of pixels at its start, alternating in rounds.

    Args:
      label: of the model, for tables.
      settings: of a configuration.
      rounds: alternations.
      number: of images that are drawn at once.
      spec: of the images.

    Returns:
      "ms_stepwise" and "ms_recomputed" for each image: drawn by `sample`, and D times the network's
      logits of whole images. "passes": the time of `sample` in passes of the whole network,
      and "recomputed_over_stepwise": median and quartiles of ratios taken within a round.
    """
    law, x = _law(settings, number, spec)
    draw = jax.jit(lambda key: law.sample(key, (number,)))
    turns = [_turn(draw, jax.random.key(1)), _turn(jax.jit(law.logits), x)]
    for turn in turns:
        turn()  # compiles
    seconds = in_turns(turns, rounds)
    passes = seconds[:, 0] / seconds[:, 1]
    ms = [1e3 * statistics.median(seconds[:, i]) / number for i in range(2)]
    return {
        "label": label,
        "images": number,
        "ms_stepwise": ms[0],
        "ms_recomputed": spec.dim * ms[1],
        "passes": spread(passes),
        "recomputed_over_stepwise": spread(spec.dim / passes),
    }


def _law(settings: dict[str, Any], number: int, spec: Spec) -> tuple[Any, jax.Array]:
    """p(x) of a configured model at its start, and images [number, D]."""
    model = models.make(configs.make(**settings), spec)
    x = jax.random.bernoulli(jax.random.key(2), 0.2, (number, spec.dim)).astype(jnp.float32)
    params = jax.jit(model.init)(jax.random.key(0), Batch(x))
    return model.distribution(params, (), NOTHING_GIVEN), x


def _turn(function: Callable, *arguments: Any) -> Callable[[], float]:
    """A function that returns the seconds of a call."""

    def turn() -> float:
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        return time.perf_counter() - start

    return turn


def print_sampling(cells: Sequence[dict[str, Any]]) -> None:
    """Prints milliseconds for each image: a line for each model."""
    head = f"sampling, {cells[0]['images']} images at once"
    print(f"\n{head:34} ms an image   recomputed   recomputed / this (quartiles)   passes")
    for cell in cells:
        ratio, passes = cell["recomputed_over_stepwise"], cell["passes"]
        low, high = ratio["quartiles"]
        print(
            f"  {cell['label']:32} {cell['ms_stepwise']:11.2f} {cell['ms_recomputed']:12.0f}   "
            f"{ratio['median']:17.0f} ({low:.0f} {high:.0f}) {passes['median']:10.1f}",
            flush=True,
        )
