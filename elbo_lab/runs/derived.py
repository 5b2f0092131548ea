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

from elbo_lab import evaluation, files, keys
from elbo_lab.data import Batch, Codes, Dataset
from elbo_lab.distributions.means import mean_or_draw
from elbo_lab.errors import UserError
from elbo_lab.losses.posteriors import sample_from
from elbo_lab.methods import Method
from elbo_lab.models.base import NOTHING_GIVEN, given_of
from elbo_lab.objective_options import GAN
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
    if trained.method.encode is None:
        return _below(name, trained)
    kind = f"{source.kind}-sample" if source.is_sample else source.kind
    arrays = _kept(trained, kind, lambda: _encoded(source, trained))
    if source.kind == CODES:
        return _top(name, trained, arrays)
    return Dataset(
        name,
        arrays["x_train"],
        arrays["x_test"],
        trained.dataset.y_train,
        trained.dataset.y_test,
        image_shape=arrays["x_train"].shape[1:],
        notes=(*trained.dataset.notes, f"features of {trained.path}, step {trained.step:,}"),
        kind="real",
        decode=_decoder(trained),
        checkpoint=trained.digest,
        text=trained.dataset.text,
    )


def _top(name: str, trained: Trained, arrays: dict[str, np.ndarray]) -> Dataset:
    """The top level of a VQ-VAE's codes, which is the only one unless there are several."""
    levels = trained.method.code_specs
    of_levels = f"level 1 of {len(levels)}, " if len(levels) > 1 else ""
    note = f"codes of {trained.path}, {of_levels}step {trained.step:,}"
    codes = Codes(
        levels,
        level=0,
        train=arrays["x_train"],
        test=arrays["x_test"],
        log_pz_above=np.zeros_like(arrays["log_px_z"]),
        draw_above=None,
        decode=functools.partial(_decoded, trained),
    )
    return _of_level(
        trained.dataset._replace(log_px_z=arrays["log_px_z"]), name, trained, codes, note
    )


def _below(name: str, trained: Trained) -> Dataset:
    """The codes of the level below those that a run models, given all levels above."""
    above = trained.dataset.codes
    log_pz_above = None
    if above.log_pz_above is not None:
        log_pz = _kept(trained, "log_pz", lambda: _measured(trained))["log_pz"]
        log_pz_above = above.log_pz_above + log_pz
    codes = above._replace(
        level=above.level + 1,
        log_pz_above=log_pz_above,
        draw_above=functools.partial(_drawn, trained),
    )
    note = f"their level {codes.level + 1}, given what {trained.path} models, step {trained.step:,}"
    return _of_level(trained.dataset, name, trained, codes, note)


def _of_level(dataset: Dataset, name: str, trained: Trained, codes: Codes, note: str) -> Dataset:
    """The data set of one level of codes.

    Args:
      dataset: its labels and notes are taken, and its log p(x|codes).
      name: of the new one.
      trained: the run whose checkpoint the new one depends on.
      codes: of all levels, at the new one's.
      note: added to the notes.
    """
    spec = codes.specs[codes.level]
    return Dataset(
        name,
        codes.x(codes.train),
        codes.x(codes.test),
        dataset.y_train,
        dataset.y_test,
        image_shape=spec.shape,
        notes=(*dataset.notes, note),
        kind=spec.kind,
        levels=spec.levels,
        decode=codes.decode if codes.is_lowest else None,
        log_px_z=dataset.log_px_z,
        checkpoint=trained.digest,
        codes=codes,
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
    codes_above = trained.dataset.codes
    if source.kind == CODES and trained.method.encode is None and codes_above is not None:
        _check_above(trained)
    else:
        _check_encoding(source, trained)
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


def _check_encoding(source: Source, trained: Trained) -> None:
    encoded = None
    if trained.method.encode is not None:
        encoded = CODES if trained.method.code_specs else FEATURES
    if encoded != source.kind:
        named = GAN if trained.config.objective == GAN else trained.config.model
        has = f"it has {encoded}: {encoded}:{source.run}" if encoded else "it encodes nothing"
        raise UserError(f"{source.run} is a run of {named}, without {source.kind}; {has}.")


def _check_above(trained: Trained) -> None:
    """Raises a UserError for a model of codes with no level below, or one given labels."""
    codes = trained.dataset.codes
    if codes.is_lowest:
        raise UserError(
            f"{trained.path} models the lowest level of codes, {codes.level + 1} of "
            f"{len(codes.specs)}; there is none below it."
        )
    if trained.method.classes is not None:
        raise UserError(
            f"{trained.path} models codes given labels, and those of the level below are modelled "
            "without; give a run with --condition=none."
        )


def _kept(
    trained: Trained, kind: str, make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Arrays of a run's checkpoint that are made once and stored in the run's folder."""
    path = trained.path / FOLDER / f"{kind}-{trained.digest[:16]}.npz"
    arrays = _stored(path)
    if arrays is None:
        arrays = make()
        _write(path, arrays)
    return arrays


def _encoded(source: Source, trained: Trained) -> dict[str, np.ndarray]:
    """Features of both splits, whose images are binarized once; or their codes of all levels, and
    log p(x|z) of the test examples.
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


def _measured(trained: Trained) -> dict[str, np.ndarray]:
    """log p of the codes that a run models, given those above, of each test example."""
    test = examples.test_examples(trained.config, trained.dataset, trained.spec)
    evaluator = evaluation.make_evaluator(trained.method)
    key = keys.stream_key(keys.base_key(trained.config.seed), keys.EVALUATION)
    values = evaluation.evaluate(evaluator, key, trained.params, trained.stats, test)
    return {"log_pz": values["log_px"]}


def _drawn(
    trained: Trained, key: Array, number: int, on_progress: Callable[[float], None]
) -> np.ndarray:
    """Drawn codes [number, M_1 + ...] of the level that a run models and of those above it."""
    draws = trained.draws(key, number, on_progress)
    above = [] if draws.context is None else [draws.context]
    return np.concatenate([*above, draws.x], axis=1)


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
