"""What the study features computes from trained encoders: probes, and classifiers made of them.

For each seed and each number of labels: linear probes of the VAE's means, of the autoencoder's
codes and of the pixels, and a classifier (the VAE's encoder and a linear layer) trained from the
VAE's weights and from fresh ones. All see the same examples as the VAE, binarized once, and the
same labelled ones. Accuracies are kept in the study's folder, in probes.json, after each seed.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab import keys
from elbo_lab.data import Batch
from elbo_lab.evaluation import classifiers, probes
from elbo_lab.evaluation.classifiers import Classifier, Training
from elbo_lab.runs import derived, examples
from elbo_lab.runs.loading import Trained
from elbo_lab.studies import analysed_runs, stored_results
from elbo_lab.studies.analysed_runs import Part, Run
from elbo_lab.studies.study import Load

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

    Arguments and errors: see `study.AfterTraining`.
    """
    pairs = _pairs(analysed_runs.trained_runs(path, sweep, load))
    if not pairs:
        return
    vae = pairs[0].vae
    split = _split(vae)
    programs = _programs(vae, split)
    parts = [
        Part(
            {"seed": pair.seed, "source": pair.source},
            functools.partial(_accuracies, pair, split, programs),
        )
        for pair in pairs
    ]
    content = {
        "rows": (read(path) or {"rows": []})["rows"],
        "train": len(split.y_train),
        "test": len(split.y_test),
        "data": vae.config.dataset,
    }
    each = len(split.numbers) * len(METHODS)
    analysed_runs.compute_missing(path / FILE, content, parts, "probing", "fits", each=each)


def read(path: Path) -> dict[str, Any] | None:
    """The accuracies in a study's folder; None if there are none, or the file is damaged."""
    return stored_results.read_undamaged(path / FILE, _KIND)


def _pairs(runs: Iterable[Run]) -> list[Pair]:
    """The runs of each seed; a seed of which a run failed is left out."""
    own: dict[str, dict[int, Trained]] = {VAE: {}, AUTOENCODER: {}}
    for run in runs:
        own[run.cell["values"]["encoder"]][run.trained.config.seed] = run.trained
    vaes, autoencoders = own.values()
    return [
        Pair(seed, vae, autoencoders[seed]) for seed, vae in vaes.items() if seed in autoencoders
    ]


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


def _accuracies(pair: Pair, split: Split, programs: _Programs) -> Iterator[dict[str, Any]]:
    """Yields method, number of labels and test accuracy, as fields of a row."""
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
            accuracy = probes.accuracy(scores, split.y_test)
            yield {"method": method, "labels": number, "accuracy": accuracy}
        rows = order[:number]
        for method, (x_train, x_test) in features.items():
            probe = probes.fit(x_train[rows], split.y_train[rows], split.classes, L2)
            accuracy = probe.accuracy(x_test, split.y_test)
            yield {"method": method, "labels": number, "accuracy": accuracy}


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
