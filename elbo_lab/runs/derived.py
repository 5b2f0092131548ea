"""Data sets made from a trained run: `features:RUN`, `features:RUN:sample`, `codes:RUN`.

Both splits are encoded once by replicate 0, and labels are kept. The arrays are stored in the run's
folder derived/, in files named by the digest of the checkpoint that encoded them, so that a run
that was trained again is encoded again.
"""

import functools
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab import files, keys
from elbo_lab.data import Batch, Dataset
from elbo_lab.distributions.means import mean_or_draw
from elbo_lab.errors import UserError
from elbo_lab.losses.posteriors import sample_from
from elbo_lab.methods import Method
from elbo_lab.models.base import NOTHING_GIVEN, given_of
from elbo_lab.runs import examples, loading
from elbo_lab.runs.loading import Trained

FOLDER = "derived"
FEATURES, CODES = "features", "codes"
# The replicate that encodes.
REPLICATE = 0
# Number of examples that are encoded at once.
CHUNK = 500


class Source(NamedTuple):
    """The parts of a data set's name."""

    kind: str  # FEATURES or CODES
    run: str
    is_sample: bool  # features are draws from q(z|x) instead of its means


def parse(name: str) -> Source | None:
    """The parts of a name such as "features:RUN:sample"; None if it is of another kind."""
    kind, colon, rest = name.partition(":")
    if not colon or kind not in (FEATURES, CODES):
        return None
    is_sample = kind == FEATURES and rest.endswith(":sample")
    return Source(kind, rest.removesuffix(":sample") if is_sample else rest, is_sample)


def load(name: str, data_dir: str | None = None, manual_dir: str | None = None) -> Dataset | None:
    """The data set of a name that `parse` knows; None for another name.

    Features are float32 [N, L] of the kind "real", codes int32 [N, M] of the kind "token".

    Raises:
      UserError: there is no such run, it cannot be loaded, it is not trained to its end, its
        replicate 0 diverged, or it has no features or codes.
    """
    source = parse(name)
    if source is None:
        return None
    if not source.run:
        raise UserError(f"give the run too, as {source.kind}:RUN, with RUN a run's directory.")
    trained = load_run(source.run, REPLICATE, data_dir, manual_dir)
    _check(source, trained)
    path = trained.path / FOLDER / f"{_file_name(source, trained)}.npz"
    arrays = _stored(path)
    if arrays is None:
        arrays = _encoded(source, trained)
        _write(path, arrays)
    is_code, spec = source.kind == CODES, trained.method.code_spec
    note = f"{source.kind} of {trained.path}, step {trained.step:,}"
    return Dataset(
        name,
        arrays["x_train"],
        arrays["x_test"],
        trained.dataset.y_train,
        trained.dataset.y_test,
        image_shape=spec.shape if is_code else arrays["x_train"].shape[1:],
        notes=(*trained.dataset.notes, note),
        kind="token" if is_code else "real",
        levels=spec.levels if is_code else None,
        decode=_decoder(trained),
        log_px_z=arrays["log_px_z"] if is_code else None,
        checkpoint=trained.digest,
        text=trained.dataset.text,
    )


def load_run(
    path: str | Path,
    replicate: int = 0,
    data_dir: str | None = None,
    manual_dir: str | None = None,
) -> Trained:
    """`loading.load`, also of a run whose data are another run's features or codes."""
    return loading.load(path, replicate, data_dir, manual_dir, resolve=load)


def encode_in_chunks(trained: Trained, batch: Batch) -> np.ndarray:
    """Features [N, L] (means of q(z|x)) or codes [N, M] of a batch, few examples at a time."""
    return _in_chunks(_encoding(trained.method), trained, batch)


def _check(source: Source, trained: Trained) -> None:
    """Raises a UserError for a run that has no such features or codes, or is not trained."""
    encoded = None
    if trained.method.encode is not None:
        encoded = CODES if trained.method.code_spec is not None else FEATURES
    if encoded != source.kind:
        has = f"it has {encoded}: {encoded}:{source.run}" if encoded else "it encodes nothing"
        raise UserError(
            f"{source.run} is a run of {trained.config.model}, without {source.kind}; {has}."
        )
    if trained.step < trained.total_steps:
        raise UserError(
            f"{source.run} is at step {trained.step:,} of {trained.total_steps:,}; train it to its "
            "end first, by the command that began it."
        )
    if trained.failed_at >= 0:
        raise UserError(
            f"{source.kind}:{source.run} takes replicate {REPLICATE} of the run (seed "
            f"{trained.config.seed}), which diverged at step {trained.failed_at:,}; give a run "
            "whose first seed was trained to its end."
        )


def _file_name(source: Source, trained: Trained) -> str:
    sampled = "-sample" if source.is_sample else ""
    return f"{source.kind}{sampled}-{trained.digest[:16]}"


def _encoded(source: Source, trained: Trained) -> dict[str, np.ndarray]:
    """Codes or features of both splits, whose images are binarized once; for codes also log p(x|z)
    of the test examples.
    """
    method, config = trained.method, trained.config
    test = examples.test_examples(config, trained.dataset, trained.spec)
    train = examples.all_of_train(config, trained.dataset, trained.spec)
    encode = _sampling(trained) if source.is_sample else _encoding(method)
    arrays = {
        "x_train": _in_chunks(encode, trained, train),
        "x_test": _in_chunks(encode, trained, test),
    }
    if source.kind == CODES:
        arrays["log_px_z"] = _in_chunks(_log_px_z(method), trained, test)
    return arrays


def _in_chunks(function: Callable[..., Array], trained: Trained, batch: Batch) -> np.ndarray:
    """(params, stats, batch, start) -> [n, ...], applied to chunks of examples: [N, ...]."""
    call = jax.jit(function)
    number = batch.x.shape[0]
    parts = []
    for start in range(0, number, CHUNK):
        rows = jax.tree.map(lambda array, s=start: array[s : s + CHUNK], batch)
        parts.append(np.asarray(call(trained.params, trained.stats, rows, start)))
    return np.concatenate(parts)


def _encoding(method: Method) -> Callable[..., Array]:
    """(params, stats, batch, start) -> codes, or means of q(z|x), of each example."""

    def encode(params: Any, stats: Any, batch: Batch, start: Array) -> Array:
        del start
        return method.encode(params, stats, batch)

    return encode


def _sampling(trained: Trained) -> Callable[..., Array]:
    """(params, stats, batch, start) -> one draw of q(z|x) for each example, by the run's own key.

    Raises:
      UserError: the method has no q(z|x).
    """
    if trained.method.posterior is None:
        raise UserError(f"{trained.path} has no q(z|x) to draw features from; leave out :sample.")
    key = keys.stream_key(keys.base_key(trained.config.seed), keys.SAMPLES)

    def draw(params: Any, stats: Any, batch: Batch, start: Array) -> Array:
        posterior = trained.method.posterior(params, stats, batch)
        first = getattr(posterior, "first", posterior)  # of a Chain, layer 1
        return sample_from(first, jax.random.fold_in(key, start), ())

    return draw


def _log_px_z(method: Method) -> Callable[..., Array]:
    """(params, stats, batch, start) -> log p(x|codes of x) of each example."""

    def log_px_z(params: Any, stats: Any, batch: Batch, start: Array) -> Array:
        del start
        codes = method.encode(params, stats, batch)
        given = given_of(batch)
        return method.decode(params, stats, codes, given).log_prob(batch.x)

    return log_px_z


def _decoder(trained: Trained) -> Callable[[Any], np.ndarray] | None:
    """The function from codes or features to images; None for a model that is conditioned on
    labels, which decodes no features without them.
    """
    return None if trained.method.classes is not None else functools.partial(_decoded, trained)


def _decoded(trained: Trained, code: Any) -> np.ndarray:
    """Images [n, *shape] of codes or features [n, ...]: means of p(x|z), else draws."""

    @jax.jit
    def decode(params: Any, stats: Any, code: Array) -> Array:
        law = trained.method.decode(params, stats, code, NOTHING_GIVEN)
        return mean_or_draw(jax.random.key(0), law)

    x = decode(trained.params, trained.stats, jnp.asarray(code))
    return np.asarray(x).reshape(-1, *trained.spec.shape)


def _stored(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays that were encoded before; None if there is no file or it is damaged."""
    try:
        # Opened here: np.load leaves the file of a damaged archive open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
        digest = arrays.pop("sha256")
    except files.DAMAGE_ERRORS:
        return None
    return arrays if str(digest) == _digest(arrays) else None


def _digest(arrays: dict[str, np.ndarray]) -> str:
    value = hashlib.sha256()
    for name in sorted(arrays):
        value.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        value.update(np.ascontiguousarray(arrays[name]).data)
    return value.hexdigest()


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, sha256=_digest(arrays))
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path.parent}: {error.strerror}") from error
    files.write_atomically(path, buffer.getvalue())
