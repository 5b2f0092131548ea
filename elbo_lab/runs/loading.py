"""Loads a trained run: `elbo_lab.load("runs/X")`. The run's directory is only read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab import configs, data, evaluation, methods, training
from elbo_lab.configs import Config
from elbo_lab.data import Batch, Dataset, Spec, binarization, is_binary
from elbo_lab.errors import UserError
from elbo_lab.evaluation import classification
from elbo_lab.methods import Method
from elbo_lab.models import conditions
from elbo_lab.models.base import Given
from elbo_lab.runs import examples, run_files, states
from elbo_lab.training import optimizer


class Trained(NamedTuple):
    """One replicate of a run at its newest checkpoint.

    Its functions take arrays like the training data: images in [0, 1] (or uint8), [N, D] or
    [N, H, W, ...], already binarized if the model is one of binary images.
    """

    path: Path
    config: Config  # of this replicate
    dataset: Dataset  # its training and test examples, without those held out
    spec: Spec
    method: Method
    params: Any  # that it is evaluated at: averaged weights if it has them
    stats: Any
    step: int  # training steps of the checkpoint
    total_steps: int  # training steps of the whole run
    digest: str  # of the checkpoint
    failed_at: int = -1  # the step at which this replicate diverged; -1: it did not

    def batch(self, x: Any, label: Any = None, context: Any = None) -> Batch:
        """Examples as the method takes them: x [N, ...] -> [N, D] in the kind's type.

        Raises:
          ValueError: x has another number of values per example, or values out of range; a model
            that is conditioned on labels, or on the codes of the levels above, gets none, or other
            ones than it has.
        """
        x = np.asarray(x)
        if not x.size or x[0].size != self.spec.dim:
            raise ValueError(
                f"x must have {self.spec.dim} values per example, in the shape [N, D] or [N, "
                f"{', '.join(map(str, self.spec.shape))}]; got the shape {x.shape}."
            )
        x = x.reshape(len(x), -1)
        if self.spec.kind == "image" and x.dtype.kind in "biu" and x.max() <= 1:
            x = x.astype(np.float32)  # binary images, as `data.load` reads whole numbers of 0 and 1
        _check_values(x, self.spec)
        if self.method.classes is not None:
            label = self.labels_of(label, len(x))
        elif label is not None:
            label = jnp.asarray(label, jnp.int32)
        context = self._context_of(context, len(x))
        x = binarization.model_input(jnp.asarray(x), self.spec.kind)
        return Batch(x, label, context=context)

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
        label: Any = None,
    ) -> np.ndarray:
        """Draws [number, *shape] from the model; means of p(x|z) where it has latents. Of codes
        given those above, these are drawn first, by the runs that model them; see `draws`.

        Args:
          key: one typed PRNG key.
          number: of draws.
          on_progress: called with the fraction that is done.
          label: of a model that is conditioned on labels, the class of all draws [] or of each
            [number]; None: classes are drawn by their frequencies among the training examples.

        Raises:
          ValueError: the method gives no samples, or there is no such class.
        """
        return self.draws(key, number, on_progress, label).x.reshape(number, *self.spec.shape)

    def draws(
        self,
        key: Array,
        number: int,
        on_progress: Callable[[float], None] = lambda part: None,
        label: Any = None,
    ) -> Batch:
        """The draws of `sample` as x [number, D], with the labels and the codes above, `context`
        [number, M], that they are given. All are NumPy arrays.
        """
        if self.method.sample is None:
            raise ValueError(f"{self.config.model} gives no samples without a prior of its codes.")
        context = None
        if self.spec.context:
            context_key, key = jax.random.split(key)
            draw_above = self.dataset.codes.draw_above
            context = draw_above(context_key, number, lambda part: on_progress(part / 2))
        if self.method.classes is not None and label is None:
            label_key, key = jax.random.split(key)
            share = classification.frequencies(self.dataset.y_train, self.method.classes)
            label = jax.random.choice(label_key, len(share), (number,), p=jnp.asarray(share))
        if label is not None:
            label = np.full(number, label) if np.ndim(label) == 0 else label
            label = self.labels_of(label, number)
        given = Given(label=label, context=self._context_of(context, number))
        done = 0.0 if context is None else 0.5
        x = self.method.sample(
            key,
            self.params,
            self.stats,
            number,
            given,
            on_progress=lambda part: on_progress(done + (1 - done) * part),
        )
        return jax.tree.map(np.asarray, Batch(x, label, context=context))

    def _context_of(self, context: Any, number: int) -> Array | None:
        """Codes of the levels above [number, M], int32, for a model that is conditioned on them.

        Raises:
          ValueError: the model is not conditioned on codes, or they are missing, not as many, or
            out of range.
        """
        levels = self.spec.context
        if not levels:
            if context is not None:
                raise ValueError(f"{self.path} is not conditioned on codes; give no context.")
            return None
        size, most = sum(spec.dim for spec in levels), min(spec.levels for spec in levels)
        valid = f"whole numbers in 0..{most - 1}, [{number}, {size}], the codes of the levels above"
        if context is None:
            raise ValueError(f"context is missing: {self.path} is conditioned on {valid}.")
        context = np.asarray(context)
        if context.shape != (number, size) or context.dtype.kind not in "iu":
            raise ValueError(f"context must be {valid}; got {context.dtype} {context.shape}.")
        if not (0 <= context.min() and context.max() < most):
            raise ValueError(f"context must be {valid}; got {context.min()} to {context.max()}.")
        return jnp.asarray(context, jnp.int32)

    def labels_of(self, label: Any, number: int) -> Array:
        """Labels [number], int32, for a model that is conditioned on them.

        Raises:
          ValueError: the model is not conditioned on labels, has no such class, or the labels are
            missing or not as many.
        """
        if self.method.classes is None:
            raise ValueError(f"{self.path} is not conditioned on labels; give none.")
        valid = f"whole numbers in 0..{self.method.classes - 1}, one for each of {number} examples"
        if label is None:
            raise ValueError(f"label is missing: {self.path} is conditioned on labels, {valid}.")
        label = np.asarray(label)
        if label.shape != (number,) or label.dtype.kind not in "iu":
            raise ValueError(f"label must be {valid}; got {label.dtype} {label.shape}.")
        if not (0 <= label.min() and label.max() < self.method.classes):
            raise ValueError(f"label must be {valid}; got {label.min()} to {label.max()}.")
        return jnp.asarray(label, jnp.int32)

    def measure(
        self, key: Array, x: Any, label: Any = None, context: Any = None
    ) -> dict[str, np.ndarray]:
        """Every quantity of every example, in nats; of p(x|y) if it is conditioned on labels, of
        p(x|context) if on the codes of the levels above.

        "log_likelihood" [N] estimates log p(x) by L_K with K = config.eval_k draws, a lower bound
        in expectation; "log_px" [N], of a method that has it, is exact.

        Raises:
          ValueError: see `batch`; or x is grey levels and the model is one of binary images.
        """
        batch = self.batch(x, label, context)
        if self.spec.kind == "image" and self.spec.levels == 2 and not is_binary(batch.x):
            raise ValueError(
                "x must be binary, since p(x) is a distribution of binary images; got grey levels. "
                "Make it binary as the run did, e.g. by a threshold."
            )
        evaluator = evaluation.make_evaluator(self.method)
        return evaluation.evaluate(evaluator, key, self.params, self.stats, batch)


def load(
    path: str | Path,
    replicate: int = 0,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    resolve: Callable[..., Dataset | None] | None = None,
) -> Trained:
    """A run's configuration, data, method, parameters and stats, at its newest checkpoint.

    No file of the run is changed: a damaged checkpoint is skipped, with a warning, and the newest
    whole one is loaded.

    Args:
      path: the run's directory.
      replicate: index of the replicate.
      data_dir: see `data.load`.
      manual_dir: see `data.load`.
      resolve: see `data.load`.

    Raises:
      UserError: there is no run or no whole checkpoint, its data have changed, or it is of another
        version.
    """
    folder = Path(path).expanduser()
    run = read_config(path)
    config = run.config
    if not 0 <= replicate < config.replicates:
        raise UserError(
            f"{path} has {config.replicates} replicates, counted from 0; got {replicate}."
        )
    try:
        dataset = data.load(config.dataset, data_dir, manual_dir, resolve=resolve)
    except UserError as error:
        raise UserError(f"{path} was trained on {config.dataset}: {error}") from error
    data_digest = data.digest(dataset, conditions.is_conditional(config.model_options))
    if data_digest != run.data_digest:
        changed = data.changed(config.dataset, run.data_digest, data_digest)
        raise UserError(f"{path} cannot be loaded: {changed}.")
    dataset = data.hold_out(dataset, config.held_out)
    spec, number = data.spec_of(dataset, config.binarization), len(dataset.x_train)
    method = methods.make(config, spec, number)
    stored = read_state(path, run, dataset, spec, method)
    params = optimizer.evaluation_params(config, stored.state)
    trained, failed_at = (params, stored.state.stats), stored.state.failure.step
    if config.replicates > 1:
        trained, failed_at = jax.tree.map(lambda leaf: leaf[replicate], (trained, failed_at))
    params, stats = trained
    return Trained(
        folder,
        run.replicas[replicate],
        dataset,
        spec,
        method,
        params,
        stats,
        stored.step,
        training.total_steps(config, number),
        stored.digest,
        int(failed_at),
    )


class StoredRun(NamedTuple):
    """The configuration of a run's directory."""

    config: Config  # shared by all replicates
    replicas: tuple[Config, ...]  # one for each replicate
    data_digest: str


def read_config(path: str | Path) -> StoredRun:
    """The configuration in a run's directory.

    Raises:
      UserError: it is not a run's directory, or a run of another version.
    """
    try:
        stored = run_files.read_config(Path(path).expanduser())
    except UserError as error:
        raise UserError(f"{path} is not a run's directory ({error}).") from error
    try:
        config = configs.from_dict(stored["config"])
        return StoredRun(config, _replicas(config, stored), stored["data_sha256"])
    except UserError as error:
        reason = str(error).rstrip(".")
        raise UserError(f"{path} is not a run of this version ({reason}).") from error


def read_state(
    path: str | Path, run: StoredRun, dataset: Dataset, spec: Spec, method: Method
) -> states.Stored:
    """The newest whole checkpoint of all replicates.

    Args:
      path: the run's directory.
      run: its configuration.
      dataset: of data of the run's spec, without what is held out; values do not matter.
      spec: of the data.
      method: the run's.

    Raises:
      UserError: there is no whole checkpoint, or it has another structure.
    """
    base_keys = training.base_keys(run.replicas)
    number = len(dataset.x_train)
    loop = training.make_loop(run.config, method, number, spec.kind, shard_batch=False)
    like = loop.shapes(base_keys, *examples.first_rows(dataset))
    try:
        stored = states.read(Path(path).expanduser(), like, base_keys, method.terms)
    except UserError as error:
        raise UserError(f"{path} cannot be loaded: {str(error).rstrip('.')}.") from error
    if stored is None:
        raise UserError(f"{path} has no checkpoint yet, or none that is whole.")
    return stored


def _check_values(x: np.ndarray, spec: Spec) -> None:
    """Raises a ValueError for values that examples of this kind cannot have."""
    least, most = x.min(), x.max()
    if spec.kind == "image" and x.dtype != np.uint8 and not (least >= 0 and most <= 1):
        raise ValueError(
            f"x must be images in [0, 1], or uint8; got {x.dtype} from {least} to {most}."
        )
    if spec.kind == "token" and not (x.dtype.kind in "iu" and least >= 0 and most < spec.levels):
        raise ValueError(
            f"x must be whole numbers in 0..{spec.levels - 1}; got {x.dtype} from {least} to "
            f"{most}."
        )


def _replicas(config: Config, stored: dict[str, Any]) -> tuple[Config, ...]:
    """A config for each replicate; those of a sweep may differ in more than their seeds."""
    if stored.get("replicas") is None:
        return training.replicas(config)
    shared = configs.to_dict(config) | {"replicates": 1}
    return tuple(configs.from_dict(shared | own) for own in stored["replicas"])
