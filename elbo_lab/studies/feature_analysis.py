"""What the study features computes from trained encoders: probes, and classifiers made of them.

For each seed and each number of labels: linear probes of the VAE's means, of the autoencoder's
codes and of the pixels, and a classifier (the VAE's encoder and a linear layer) trained from the
VAE's weights and from fresh ones. All see the same examples as the VAE, binarized once, and the
same labelled ones. Accuracies are kept in the study's folder, in probes.json, after each seed.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab import json_files, keys
from elbo_lab.data import Batch
from elbo_lab.errors import UserError
from elbo_lab.evaluation import classifiers, probes
from elbo_lab.evaluation.classifiers import Classifier, Training
from elbo_lab.runs import derived, examples, rundir
from elbo_lab.runs.loading import Trained
from elbo_lab.runs.progress import Progress
from elbo_lab.studies import stored_results
from elbo_lab.studies.study import Load
from elbo_lab.sweeps import sweep_results

FILE = "probes.json"
# The cells of the study.
VAE, AUTOENCODER = "VAE", "autoencoder"
# Numbers of labelled examples besides all of them.
LABELS = (10, 100, 1000)
# The weight of the L2 penalty of a probe, whose features have a mean squared norm of 1.
L2 = 0.1
TRAINING = Training(steps=1000, batch_size=100, learning_rate=1e-3)
# Methods in the order of tables and figures.
FINE_TUNED, FRESH = "classifier from the VAE's encoder", "classifier from fresh weights"
MEANS, CODES = "probe of the VAE's means", "probe of the autoencoder's codes"
PIXELS = "probe of the pixels"
METHODS = (FINE_TUNED, FRESH, MEANS, CODES, PIXELS)

_ROW = {"method": str, "labels": int, "seed": int, "accuracy": float, "source": str}
_KIND = {"rows": list[_ROW], "train": int, "test": int, "data": str}


class Pair(NamedTuple):
    """The runs of one seed."""

    seed: int
    vae: Trained
    autoencoder: Trained

    @property
    def source(self) -> str:
        """Sixteen hexadecimal digits of all that the accuracies of the seed depend on."""
        settings = [LABELS, L2, TRAINING, METHODS]
        value = json.dumps([self.seed, self.vae.digest, self.autoencoder.digest, settings])
        return hashlib.sha256(value.encode()).hexdigest()[:16]


class Split(NamedTuple):
    """Training and test examples as the encoders see them, and their labels."""

    x_train: Array  # [N, D]
    x_test: Array  # [N', D]
    y_train: np.ndarray  # [N]
    y_test: np.ndarray  # [N']

    @property
    def classes(self) -> int:
        """C, the number of classes."""
        return 1 + int(max(self.y_train.max(), self.y_test.max()))

    @property
    def numbers(self) -> list[int]:
        """The numbers of labelled training examples, at least one for each class."""
        total = len(self.y_train)
        return [n for n in LABELS if self.classes <= n < total] + [total]


class _Programs(NamedTuple):
    """Compiled functions, which the runs of all seeds share."""

    encode: Callable[..., Array]  # (params, stats, batch) -> features [B, L]
    fresh: Callable[..., Any]  # key -> params that are not trained
    train: Callable[..., Classifier]  # see `classifiers.make_trainer`
    scores: Callable[[Classifier, Array], Array]


def compute(path: Path, sweep: dict[str, Any], load: Load) -> None:
    """Computes the accuracies that probes.json lacks, once all runs are trained.

    Args:
      path: the sweep's folder.
      sweep: the content of its sweep.json.
      load: reads a trained run.

    Raises:
      UserError: a run cannot be loaded, or the file cannot be written.
    """
    places = _places(path, sweep)
    pairs = [Pair(seed, *(load(*place) for place in own)) for seed, own in places.items()]
    stored = read(path)
    sources = {pair.source for pair in pairs}
    # Rows of runs that were trained again since are dropped.
    rows = [row for row in stored["rows"] if row["source"] in sources] if stored else []
    done = {row["source"] for row in rows}
    missing = [pair for pair in pairs if pair.source not in done]
    if not missing or rundir.is_read_only(path):
        return
    split = _split(missing[0].vae)
    programs = _programs(missing[0].vae, split)
    each = len(split.numbers) * len(METHODS)
    progress = Progress("probing", each * len(pairs), each * (len(pairs) - len(missing)), "fits")
    about = {"train": len(split.y_train), "test": len(split.y_test)}
    about["data"] = missing[0].vae.config.dataset
    try:
        for pair in missing:
            for method, number, accuracy in _accuracies(pair, split, programs):
                row = {"method": method, "labels": number, "accuracy": accuracy}
                rows.append(row | {"seed": pair.seed, "source": pair.source})
                progress.to(progress.done + 1)
            stored_results.write(path / FILE, {"rows": rows, **about})
    finally:
        progress.close()


def read(path: Path) -> dict[str, Any] | None:
    """The accuracies in a study's folder; None if there are none, or the file is damaged."""
    try:
        return json_files.read(path / FILE, _KIND)
    except UserError:
        return None


def _places(path: Path, sweep: dict[str, Any]) -> dict[int, list[tuple[Path, int]]]:
    """Seed -> directory and replicate of the VAE and of the autoencoder.

    Empty until all are trained; seeds of which a run failed are left out.
    """
    cells = {cell["values"]["encoder"]: cell for cell in sweep["cells"]}
    own: list[dict[int, tuple[Path, int]]] = []
    for name in (VAE, AUTOENCODER):
        if sweep_results.WAITING in cells[name].get("failures", {}).values():
            return {}
        runs = cells[name].get("runs", [])
        own.append({run["seed"]: (path / run["run"], run["replicate"]) for run in runs})
    return {seed: [places[seed] for places in own] for seed in own[0] if seed in own[1]}


def _split(trained: Trained) -> Split:
    config, dataset, spec = trained.config, trained.dataset, trained.spec
    train = examples.all_of_train(config, dataset, spec)
    test = examples.test_examples(config, dataset, spec)
    return Split(train.x, test.x, dataset.y_train, dataset.y_test)


def _programs(trained: Trained, split: Split) -> _Programs:
    method = trained.method

    def encode(encoder: Any, x: Array) -> Array:
        return method.encode(trained.params | {"encoder": encoder}, trained.stats, Batch(x))

    @jax.jit
    def fresh(key: Array) -> Any:
        return method.init(key, *examples.first_rows(trained.dataset))[0]

    train = classifiers.make_trainer(encode, split.classes, TRAINING)
    scores = jax.jit(lambda classifier, x: classifiers.scores(encode, classifier, x))
    return _Programs(jax.jit(method.encode), fresh, train, scores)


def _accuracies(pair: Pair, split: Split, programs: _Programs) -> Iterator[tuple[str, int, float]]:
    """Yields method, number of labels and test accuracy."""
    order = probes.balanced_order(split.y_train, np.random.default_rng(pair.seed))
    base_key = keys.base_key(pair.seed)
    fresh = programs.fresh(keys.stream_key(base_key, keys.CLASSIFIERS))
    starts = {FINE_TUNED: pair.vae.params["encoder"], FRESH: fresh["encoder"]}
    labelled = jnp.asarray(split.x_train), jnp.asarray(split.y_train), jnp.asarray(order)
    features = _features(pair, split, programs)
    for number in split.numbers:
        key = keys.stream_key(base_key, keys.CLASSIFIERS, number)
        for method, encoder in starts.items():
            classifier = programs.train(key, encoder, *labelled, jnp.int32(number))
            scores = _by_chunks(lambda x, c=classifier: programs.scores(c, x), split.x_test)
            yield method, number, probes.accuracy(scores, split.y_test)
        rows = order[:number]
        for method, (x_train, x_test) in features.items():
            probe = probes.fit(x_train[rows], split.y_train[rows], split.classes, L2)
            yield method, number, probe.accuracy(x_test, split.y_test)


def _features(pair: Pair, split: Split, programs: _Programs) -> dict[str, list[np.ndarray]]:
    """Probe -> features of the training and of the test split, on one scale."""
    features = {PIXELS: [np.asarray(split.x_train), np.asarray(split.x_test)]}
    for name, run in ((MEANS, pair.vae), (CODES, pair.autoencoder)):
        features[name] = [
            _by_chunks(lambda x, r=run: programs.encode(r.params, r.stats, Batch(x)), x)
            for x in (split.x_train, split.x_test)
        ]
    return {name: probes.scaled(*parts) for name, parts in features.items()}


def _by_chunks(function: Callable[[Array], Array], x: Array) -> np.ndarray:
    """A function of examples [B, D] applied to few at a time, [N, any]."""
    starts = range(0, len(x), derived.CHUNK)
    return np.concatenate([np.asarray(function(x[i : i + derived.CHUNK])) for i in starts])
