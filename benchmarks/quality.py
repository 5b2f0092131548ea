"""The part of `benchmarks.pytorch_quality` without PyTorch: evaluation by this library, results."""

from collections.abc import Callable, Sequence
from datetime import date
from importlib import metadata
from typing import Any

import jax
import numpy as np

from benchmarks.peers import ours
from benchmarks.peers.common import Task
from elbo_lab import evaluation, keys, methods
from elbo_lab.configs import Config
from elbo_lab.data import Batch, Dataset, spec_of
from elbo_lab.devices import setup
from elbo_lab.errors import UserError
from elbo_lab.evaluation import comparison
from elbo_lab.runs import examples
from elbo_lab.training import TrainState

# A constant rate of 1e-3, and PyTorch's defaults for the rest.
LEARNING_RATE, ADAM = 1e-3, (0.9, 0.999, 1e-8)
BATCH = 100
Arrays = dict[str, np.ndarray]  # path in our parameters -> array


def prepare(
    config: Config, dataset: Dataset, number: int
) -> tuple[Task, Callable[[Arrays], tuple[float, float | None]]]:
    """The task of PyTorch, and the evaluation of what it has trained.

    Args:
      config: that of `experiments.run` with the same initial parameters and evaluation.
      dataset: uint8 images.
      number: the first test images that are evaluated.

    Returns:
      The task, and a function (arrays) -> mean and standard error over test images of minus
      L_{config.eval_k}, nats. The error is None for one image.
    """
    spec = spec_of(dataset, config.binarization)
    method = methods.make(config, spec, len(dataset.x_train))
    key = keys.base_key(config.seed)
    init_key = keys.stream_key(key, keys.INITIALIZATION)
    params, stats = jax.jit(method.init)(init_key, *examples.first_rows(dataset))
    task = Task(
        batch=BATCH,
        k=config.k,
        steps=1,
        replicates=1,
        platform="cpu",
        cores=1,
        learning_rate=LEARNING_RATE,
        adam=ADAM,
        images=dataset.x_train,
        x=np.zeros((0, spec.dim), np.float32),
        arrays=ours.arrays_of(params, stats),
    )
    evaluator = evaluation.make_evaluator(method)
    test = Batch(examples.test_examples(config, dataset, spec).x[:number])
    draws_key = keys.stream_key(key, keys.EVALUATION)
    state = TrainState(None, params, (), (), stats)

    def nll(arrays: Arrays) -> tuple[float, float | None]:
        trained = ours.initial(state, task._replace(arrays=arrays))["params"]
        values = evaluation.evaluate(evaluator, draws_key, trained, stats, test)
        mean, error, _ = comparison.mean_and_error({0: -values["log_likelihood"]})
        return mean, error

    return task, nll


def check_resumed(
    notes: dict[str, Any],
    evaluated: dict[str, Any],
    reached: int,
    steps: Sequence[int],
    workdir: str,
) -> None:
    """Checks that the training in a folder can go on with these flags.

    Args:
      notes: of the folder's file: the settings of its evaluations, and its points by step.
      evaluated: flag -> value, the settings of an evaluation.
      reached: step of the folder's parameters.
      steps: value of --steps.
      workdir: value of --workdir.

    Raises:
      UserError: the settings differ, or a step that is not evaluated was passed.
    """
    for name, value in evaluated.items():
        if notes[name] != value:
            raise UserError(
                f"--{name}={value} differs from --{name}={notes[name]}, with which "
                f"--workdir={workdir} was begun; give another folder."
            )
    passed = [step for step in steps if step < reached and step not in notes["points"]]
    if passed:
        raise UserError(
            f"--steps={passed[0]} is not evaluated, and --workdir={workdir} is at step {reached}; "
            "give another folder."
        )


def point(
    step: int, seconds: float, cpu_seconds: float, mean: float, error: float | None
) -> dict[str, Any]:
    """The evaluation after a number of steps.

    Args:
      step: steps taken.
      seconds: wall time of their training.
      cpu_seconds: processor time of their training.
      mean: of minus L_K over test images, nats.
      error: standard error of the mean, nats.
    """
    return {
        "steps": step,
        "train_seconds": seconds,
        "train_cpu_seconds": cpu_seconds,
        "nll": mean,
        "standard_error": error,
        "date": date.today().isoformat(),
    }


def line(point: dict[str, Any]) -> str:
    """A point as it is printed."""
    return "{steps} steps, {train_seconds:.1f} s of training: NLL {nll:.2f} nats".format(**point)


def summary(command: str, points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The results file, without the settings of an evaluation, with the last point's date."""
    return {
        "name": "PyTorch eager, Adam",
        "command": command,
        "device": "cpu, 1 core",
        "processor": setup.processor(),
        "torch": metadata.version("torch"),
        "date": max(point["date"] for point in points),
        "points": points,
    }
