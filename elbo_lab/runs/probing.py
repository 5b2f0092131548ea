"""Measurements of the first test batch while a run trains: `--probe_every`."""

from typing import Any

import jax
import numpy as np

from elbo_lab import keys
from elbo_lab.devices import sharding
from elbo_lab.evaluation import quantities
from elbo_lab.training import Record, optimizer

# Prefix of the names of measured quantities in the lines of metrics.
PREFIX = "test_"


class Probe:
    """Measures the first test batch, the same at every step, with the same draws.

    A resumed run measures at the same steps as one that never stopped.
    """

    def __init__(self, run: Any, step: int):
        """Prepares the measurement.

        Args:
          run: a `stages.Run`.
          step: the step at which training starts.
        """
        self._config = run.config
        self._every, self._step = run.config.probe_every, step
        if self._every is None:
            return
        self._replicates = run.config.replicates
        measure, number = run.method.measure, run.method.measure_batch
        # One batch for all replicates, unless each seed draws its own test images.
        self._batches = [
            jax.tree.map(lambda array: array[:number], run.test_examples(r))
            for r in range(self._replicates if run.config.test_draw == "by_seed" else 1)
        ]
        base_keys = [run.keys] if self._replicates == 1 else jax.random.clone(run.keys).reshape(-1)
        self._keys = [keys.stream_key(key, keys.PROBE) for key in base_keys]
        self._measure = jax.jit(lambda *arguments: _means(measure(*arguments)))

    def measured(self, record: Record) -> dict[str, np.ndarray]:
        """The mean of each quantity over the batch, [] or [R]; {} if no measurement is due."""
        before, self._step = self._step, record.step
        if self._every is None or record.step // self._every == before // self._every:
            return {}
        trained = optimizer.evaluation_params(self._config, record.state), record.state.stats
        trained = sharding.fetch(trained) if jax.process_count() > 1 else trained
        rows = []
        for r in range(self._replicates):
            own = trained
            if self._replicates > 1:
                own = jax.tree.map(lambda leaf, r=r: leaf[r], trained)
            batch = self._batches[r % len(self._batches)]
            key = jax.random.clone(self._keys[r])
            rows.append(jax.device_get(self._measure(key, *own, batch)))
        if self._replicates == 1:
            return {f"{PREFIX}{name}": value for name, value in rows[0].items()}
        return {f"{PREFIX}{name}": np.stack([row[name] for row in rows]) for name in rows[0]}


def _means(measured: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The mean over examples of each quantity; representations are left out."""
    return {name: measured[name].mean() for name in quantities.present(measured)}
