"""The stages of a run before its report: train and evaluate.

Each continues where an earlier process stopped.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbo_lab import evaluation, keys, methods, training
from elbo_lab.configs import Config
from elbo_lab.data import (
    Batch,
    Dataset,
    binarization,
    contexts,
    hold_out,
    spec_of,
    streaming,
)
from elbo_lab.devices import distributed, setup, sharding
from elbo_lab.evaluation.storage import TRAIN
from elbo_lab.runs import examples, initial, probing, run_checkpoints, run_files, rundir
from elbo_lab.runs.progress import Interrupt, Progress
from elbo_lab.training import hyper, optimizer
from elbo_lab.training.metrics import MetricLog, missing_steps, read_metrics, warn_of_missing

# Number of compiled calls between checkpoints if --checkpoint_every is not given. They take about
# half a minute on a CPU, and saving takes a twentieth of a second.
CALLS_PER_CHECKPOINT = 20


class StoppedError(Exception):
    """A signal stopped a stage at a point from which it can be resumed.

    Attributes:
      status: the exit status by shell convention, 128 + the signal's number.
    """

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class DivergedError(Exception):
    """No replicate is left to train: the loss or its gradient is not finite."""


class Run:
    """A run in its claimed directory: the settings that all stages share, and their results.

    Unless `interrupt` is given, creating a run installs handlers of SIGINT and SIGTERM, which stop
    it at the next checkpoint.
    """

    def __init__(
        self,
        config: Config,
        path: Path,
        dataset: Dataset,
        tensorboard: bool,
        replicas: Sequence[Config] | None = None,
        progress: Callable[[str, int, int, str], Progress] = Progress,
        placement: setup.Placement | None = None,
        interrupt: Interrupt | None = None,
        watch: rundir.Watch | None = None,
        start: methods.Method | None = None,
    ):
        """Prepares a run.

        Args:
          config: the settings that all replicas share, and their number.
          path: the run's directory.
          dataset: the whole data set; the config says what is held out.
          tensorboard: True to write TensorBoard events.
          replicas: R configs that differ in seed and numeric hyper-parameters alone; those of the
            config's seeds if not given.
          progress: constructor of the display of a stage's progress.
          placement: the devices, and where the training images lie; decided by the device if not
            given.
          interrupt: an existing handler of signals.
          watch: the claimed directory's, in the first process alone.
          start: of `initial.started`, where the run that `config.init_from` names was read already.
        """
        self.config, self.path, self.tensorboard = config, path, tensorboard
        self.progress, self.placement = progress, placement or setup.Placement()
        self.dataset = hold_out(dataset, config.held_out)
        self.spec = spec_of(self.dataset, config.binarization)
        self.method = methods.make(config, self.spec, len(self.dataset.x_train))
        self.replicas = training.replicas(config) if replicas is None else tuple(replicas)
        self.keys = training.base_keys(self.replicas)
        self.interrupt = interrupt or Interrupt()
        self.state: training.TrainState | None = None
        self.failed_at = np.full(config.replicates, -1)
        self.watch, self.start = watch, start
        self.seconds = 0.0  # of training, including earlier processes
        self.missing: list[tuple[int, int]] = []  # steps whose lost metrics were warned of

    def check_directory(self) -> None:
        """Raises UserError once the directory was moved or removed."""
        if self.watch is not None:
            self.watch.check()

    def replicate(self, r: int) -> tuple[jax.Array, Any, Any]:
        """Base key of replicate r, and the params and stats at which it is evaluated."""
        trained = optimizer.evaluation_params(self.config, self.state), self.state.stats
        if self.config.replicates == 1:
            return self.keys, *trained
        # Cloned for JAX's check of key reuse: only streams of the base key are consumed.
        return jax.random.clone(self.keys)[r], *jax.tree.map(lambda leaf: leaf[r], trained)

    def test_examples(self, r: int = 0) -> Batch:
        """The test split as every evaluation of replicate r sees it."""
        return examples.test_examples(self.replicas[r], self.dataset, self.spec)

    def first_train_examples(self) -> Batch:
        """The first `au_images` training examples, over which active units are counted."""
        return examples.first_of_train(self.config, self.dataset, self.spec)

    def survivors(self) -> list[int]:
        """The replicates whose loss stayed finite."""
        return [r for r in range(self.config.replicates) if self.failed_at[r] < 0]


def train(run: Run) -> None:
    """Trains to the end, from the newest checkpoint if there is one; puts the state into `run`.

    Raises:
      StoppedError: after a signal, with a checkpoint saved.
      DivergedError: no replicate is finite any more.
      UserError: a file cannot be read or written.
    """
    loop, start, total = _begin(run)
    if start == total:
        # A killed process may have left incomplete events; closing the log completes them.
        distributed.on_first(lambda: _open_log(run, start).close())
        distributed.on_first(lambda: _resume_clock(run, start))
    else:
        _train_from(run, loop, _training_data(run), start, total)
    if loop.mesh is not None:
        run.state = sharding.fetch(run.state)  # Later stages take one replicate at a time.


def load(run: Run) -> bool:
    """Puts the state of a trained run into `run`; False if there is no checkpoint of its end."""
    loop, start, total = _begin(run)
    if loop.mesh is not None:
        run.state = sharding.fetch(run.state)
    return start == total


def _begin(run: Run) -> tuple[training.Loop, int, int]:
    """Puts the newest checkpoint, or a new state, into `run`; returns the loop, the state's step
    and the last step.
    """
    config, x_train = run.config, run.dataset.x_train
    loop = training.make_loop(
        config, run.method, len(x_train), run.spec.kind, run.placement.shard_batch
    )
    run.state = loop.init(run.keys, *examples.first_rows(run.dataset))
    setup.release_memory()
    total = training.total_steps(config, len(x_train))
    step = run_checkpoints.restore(run, total)
    if step == 0 and config.init_from is not None:
        method = run.start or initial.started(config, run.method, run.dataset, run.spec)
        start = training.make_loop(
            config, method, len(x_train), run.spec.kind, run.placement.shard_batch
        )
        run.state = start.init(run.keys, *examples.first_rows(run.dataset))
    return loop, step, total


def read_records(run: Run, last_step: int) -> list[dict[str, Any]]:
    """The metrics of a run. Warns once of the steps up to `last_step` that they lack."""
    records = read_metrics(run.path, _metric_names(run))
    call = training.steps_per_call(run.config, len(run.dataset.x_train))
    missing = missing_steps(records, last_step, call)
    if missing and missing != run.missing:
        warn_of_missing(run.path, missing)
    run.missing = missing
    return records


def _open_log(run: Run, step: int) -> MetricLog:
    return MetricLog(run.path, step, run.tensorboard, _metric_names(run))


def _metric_names(run: Run) -> tuple[str, ...]:
    return (*run.method.terms, *run_files.METRIC_NAMES)


def _resume_clock(run: Run, step: int) -> None:
    """Sets the seconds of training of earlier processes, if the checkpoint has none."""
    records = read_records(run, step)
    if not run.seconds and records:
        run.seconds = records[-1]["seconds"]


def _training_data(run: Run) -> Batch | streaming.Examples:
    """The training split on the device, or on the host if it is streamed."""
    x, label, context = run.dataset.x_train, run.dataset.y_train, contexts(run.dataset)[0]
    mode = binarization.mode_for_kind(run.config.binarization, run.spec.kind)
    stream = run.placement.stream
    if streaming.too_large(x.nbytes) if stream is None else stream:
        key = keys.binarization_key(keys.TRAIN_SPLIT)
        return streaming.Examples(x, mode, label, key, context)
    label, context = (None if array is None else jnp.asarray(array) for array in (label, context))
    return Batch(examples.stored(x, keys.TRAIN_SPLIT, mode), label, context=context)


def _train_from(
    run: Run, loop: training.Loop, data: Batch | streaming.Examples, start: int, total: int
) -> None:
    """Trains from step `start` to `total`, with metrics, progress and checkpoints."""
    config = run.config
    call = training.steps_per_call(config, len(run.dataset.x_train))
    every = config.checkpoint_every or CALLS_PER_CHECKPOINT * call
    saved = start
    with distributed.context_on_first(lambda: _open_log(run, start)) as log:
        distributed.on_first(lambda: _resume_clock(run, start))
        progress = run.progress("training", total, start, "steps")
        clock = time.perf_counter()
        hparams = hyper.hyperparameters(run.replicas)
        probe = probing.Probe(run, start)
        for record in training.fit(config, loop, data, run.state, run.keys, hparams):
            run.state = record.state
            now = time.perf_counter()
            run.seconds, clock = run.seconds + now - clock, now
            if progress.done == start:
                setup.release_memory()
            _check_finite(run, record, saved)
            metrics = record.metrics | probe.measured(record)
            distributed.on_first(lambda m=metrics, s=record.step: _write_line(run, log, s, m))
            term = run.method.terms[0]
            progress.to(record.step, f"{term} {np.nanmean(record.metrics[term]):.2f}")
            due = record.step // every > saved // every or record.step == total
            stop = run.interrupt.agreed()
            if due or stop:
                run_checkpoints.save(run, log, record.step)
                saved = record.step
            if stop and record.step < total:
                progress.close()
                raise StoppedError(
                    f"Stopped at step {record.step} of {total}, saved.", run.interrupt.status()
                )
        progress.close()


def _write_line(run: Run, log: MetricLog, step: int, metrics: dict[str, np.ndarray]) -> None:
    run.check_directory()
    log.write({"step": step, **metrics, "seconds": run.seconds})


def _check_finite(run: Run, record: training.Record, saved: int) -> None:
    """Reports replicates that failed since the last call.

    Args:
      run: its `failed_at` is updated.
      record: of the last compiled call.
      saved: step of the newest checkpoint; 0 if there is none.

    Raises:
      DivergedError: all replicates have failed.
    """
    failed_at = np.atleast_1d(record.failed_at)
    for r in np.flatnonzero((failed_at >= 0) & (run.failed_at < 0)):
        # All processes fetch together, since `failed_at` is the same in all.
        fetched = sharding.fetch(record.state.failure.is_finite)
        is_finite = {name: bool(np.atleast_1d(flags)[r]) for name, flags in fetched.items()}
        terms = ", ".join(training.failed_terms(is_finite))
        reason = f"not finite at step {failed_at[r]}, seed {run.replicas[r].seed}: {terms}"
        if np.all(failed_at >= 0):
            kept = "before the first checkpoint"
            if saved:
                kept = f"the checkpoint of step {saved} stays in {run.path / rundir.CHECKPOINTS}"
            raise DivergedError(f"Training diverged, {reason} ({kept}); {run.method.remedy}.")
        if distributed.is_first():
            print(f"\nReplicate {r} stopped: {reason}; the others go on.")
    run.failed_at = failed_at


def evaluate(run: Run) -> dict[int, Any]:
    """Evaluates the test split for every replicate that is finite.

    The values are written after each replicate, and replicates that are stored are not repeated.

    Returns:
      An `Evaluation` for each of `run.survivors()`.

    Raises:
      StoppedError: after a signal.
      UserError: a file cannot be written.
    """
    setup.release_memory()
    config, file = run.config, run.path / rundir.EVALUATION
    test, survivors = run.test_examples(), run.survivors()
    number = len(run.dataset.x_test)
    evaluator = evaluation.make_evaluator(run.method, sharding.images_mesh())
    shapes = measured_shapes(run)
    done = distributed.on_first(lambda: evaluation.read_evaluations(file, number, shapes))
    progress = run.progress("evaluation", number * len(survivors), 0, "examples")
    for i, r in enumerate(survivors):

        def on_batch(examples_done: int, before: int = i * number) -> None:
            progress.to(before + examples_done)
            if run.interrupt.agreed():
                progress.close()
                raise StoppedError(
                    "Stopped in the evaluation; the trained model is saved.", run.interrupt.status()
                )

        if r not in done:
            if r and config.test_draw == "by_seed":
                test = run.test_examples(r)
            key, params, stats = run.replicate(r)
            draws_key = keys.stream_key(key, keys.EVALUATION)
            values = evaluation.evaluate(evaluator, draws_key, params, stats, test, on_batch)
            values |= pair_bound(run.dataset, values)
            done[r] = values | _train_means(run, key, params, stats)
            distributed.on_first(run.check_directory)
            distributed.on_first(lambda: evaluation.write_evaluations(file, done))
        on_batch(number)
    progress.close()
    return {r: done[r] for r in survivors}


def pair_bound(dataset: Dataset, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """ "pair_bound", log p(x|codes) + log p(codes) <= log p(x), of test examples that are the codes
    of images x; {} for other examples.

    Of several levels, those of the lowest have it: log p(codes) is then the sum over all levels,
    each given those above it. Its other parts are "log_px_code" and "log_pz_above".
    """
    codes = dataset.codes
    if codes is None or not codes.is_lowest or dataset.log_px_z is None or "log_px" not in values:
        return {}
    if codes.level == 0:
        return {"pair_bound": values["log_px"] + dataset.log_px_z}
    return {
        "log_px_code": dataset.log_px_z,
        "log_pz_above": codes.log_pz_above,
        "pair_bound": values["log_px"] + codes.log_pz_above + dataset.log_px_z,
    }


def _train_means(run: Run, key: jax.Array, params: Any, stats: Any) -> dict[str, np.ndarray]:
    """E_q[z_i|x] of `first_train_examples`, [au_images, L_i] a layer; {} without au_images."""
    if not run.config.au_images or run.method.layer_means is None:
        return {}
    key = keys.stream_key(key, keys.ACTIVE_UNITS)
    means = run.method.layer_means(key, params, stats, run.first_train_examples())
    return {f"{TRAIN}{name}": array for name, array in jax.device_get(means).items()}


def measured_shapes(run: Run) -> dict[str, tuple[int, ...]]:
    """The shape of each array of an evaluation."""
    number, au_images = len(run.dataset.x_test), run.config.au_images
    key, params, stats = run.replicate(0)
    row = jax.eval_shape(lambda: examples.blank(run.spec, 1))
    measured = jax.eval_shape(run.method.measure, key, params, stats, row)
    shapes = {name: (number, *array.shape[1:]) for name, array in measured.items()}
    shapes |= {name: (number,) for name in pair_bound(run.dataset, {"log_px": np.zeros(number)})}
    if au_images and run.method.layer_means is not None:
        means = jax.eval_shape(run.method.layer_means, key, params, stats, row)
        shapes |= {f"{TRAIN}{n}": (au_images, *a.shape[1:]) for n, a in means.items()}
    return shapes
