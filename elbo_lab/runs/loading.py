"""A trained run given back: `elbo_lab.load("runs/X")`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab import configs, data, methods, training
from elbo_lab.configs import Config
from elbo_lab.data import Batch, Dataset, Spec, binarization
from elbo_lab.errors import UserError
from elbo_lab.methods import Method
from elbo_lab.runs import examples, run_files, states


class Trained(NamedTuple):
    """A run at its newest checkpoint: one replicate of it.

    Its functions take arrays as they were trained on: images in [0, 1] (or uint8), [N, D] or
    [N, H, W, ...], binarized already where the model is one of binary images.
    """

    path: Path
    config: Config  # of this replicate
    dataset: Dataset  # what it was trained and tested on, without what was held out
    spec: Spec
    method: Method
    params: Any
    stats: Any
    step: int  # training steps that it has taken
    digest: str  # of the checkpoint

    def batch(self, x: Any, label: Any = None) -> Batch:
        """Examples as the method takes them: x [N, ...] -> [N, D] in the kind's type."""
        x = np.asarray(x).reshape(len(x), -1)
        if x.shape[1] != self.spec.dim:
            raise ValueError(f"x must have {self.spec.dim} values an example; got {x.shape[1]}.")
        label = None if label is None else jnp.asarray(label, jnp.int32)
        return Batch(binarization.as_model_sees(jnp.asarray(x), self.spec.kind), label)

    def encode(self, x: Any, label: Any = None) -> Array:
        """Features [N, L] (means of q(z|x)) or codes [N, M] of examples.

        Raises:
          ValueError: the method encodes nothing.
        """
        if self.method.encode is None:
            raise ValueError(f"{self.config.model} has no encoding.")
        return jax.jit(self.method.encode)(self.params, self.stats, self.batch(x, label))

    def sample(
        self,
        key: Array,
        number: int,
        on_progress: Callable[[float], None] = lambda part: None,
    ) -> np.ndarray:
        """Draws [number, *shape] from the model; means of p(x|z) where it has latents.

        Raises:
          ValueError: the method gives no samples.
        """
        if self.method.sample is None:
            raise ValueError(f"{self.config.model} gives no samples without a prior of its codes.")
        draw = self.method.sample
        x = draw(key, self.params, self.stats, number, on_progress=on_progress)
        return np.asarray(x).reshape(number, *self.spec.shape)

    def measure(self, key: Array, x: Any, label: Any = None) -> dict[str, np.ndarray]:
        """Every quantity of every example, nats: "log_likelihood" [N] estimates log p(x)."""
        from elbo_lab import evaluation

        evaluator = evaluation.make_evaluator(self.method)
        return evaluation.evaluate(evaluator, key, self.params, self.stats, self.batch(x, label))


def load(
    path: str | Path,
    replicate: int = 0,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    resolve: Callable[..., Dataset | None] | None = None,
) -> Trained:
    """A run's configuration, data, method, parameters and stats, at its newest checkpoint.

    Args:
      path: the run's directory.
      replicate: which of its replicates.
      data_dir: see `data.load`.
      manual_dir: see `data.load`.
      resolve: see `data.load`.

    Raises:
      UserError: no run, no checkpoint, damage, or one made of other data or by another version.
    """
    folder = Path(path).expanduser()
    try:
        stored = run_files.read_config(folder)
    except UserError as error:
        raise UserError(f"{path} is not a run's directory ({error}).") from error
    try:
        config = configs.from_dict(stored["config"])
        replicas = _replicas(config, stored)
    except UserError as error:
        reason = str(error).rstrip(".")
        raise UserError(f"{path} is not a run of this version ({reason}).") from error
    if not 0 <= replicate < config.replicates:
        raise UserError(
            f"{path} has {config.replicates} replicates, counted from 0; got {replicate}."
        )
    try:
        dataset = data.load(config.dataset, data_dir, manual_dir, resolve=resolve)
    except UserError as error:
        raise UserError(f"{path} was trained on {config.dataset}: {error}") from error
    digest = data.digest(dataset)
    if digest != stored["data_sha256"]:
        changed = data.changed(config.dataset, stored["data_sha256"], digest)
        raise UserError(f"{path}: {changed} it was trained.")
    dataset = data.hold_out(dataset, config.held_out)
    spec, number = data.spec_of(dataset, config.binarization), len(dataset.x_train)
    method = methods.make(config, spec, number)
    base_keys = training.base_keys(replicas)
    loop = training.make_loop(config, method, number, spec.kind, shard_batch=False)
    like = jax.eval_shape(loop.init, base_keys, *examples.first_rows(dataset))
    try:
        restored = states.restore(folder, like, base_keys, method.terms)
    except UserError as error:
        raise UserError(f"{path} cannot be loaded: {str(error).rstrip('.')}.") from error
    if restored is None:
        raise UserError(f"{path} has no checkpoint; run its command again to train it.")
    step, state, _ = restored
    trained = state.params, state.stats
    if config.replicates > 1:
        trained = jax.tree.map(lambda leaf: leaf[replicate], trained)
    return Trained(
        folder, replicas[replicate], dataset, spec, method, *trained, step, states.digest(folder)
    )


def _replicas(config: Config, stored: dict[str, Any]) -> tuple[Config, ...]:
    """The configs of one seed each; those of a sweep may differ in more than their seeds."""
    if stored.get("replicas") is None:
        return training.replicas(config)
    shared = configs.to_dict(config) | {"replicates": 1}
    return tuple(configs.from_dict(shared | own) for own in stored["replicas"])
