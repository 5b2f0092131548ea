"""Checkpoints that are whole or absent: written atomically, verified when read.

    directory/step_00001000/   an Orbax tree (OCDBT, Zarr 3) of numpy arrays: {"0": ..., "1": ...}
        manifest.json          {"leaves": [[path, type, shape], ...] in the same order,
                                "digest": SHA-256 of that and of the arrays' bytes,
                                "files": {path: SHA-256 of every other file}}
        note.json              what the caller wants to find beside the state

Typed keys are saved as their key data, and arrays without elements not at all. A folder with such a
name is complete: it is renamed when all of it is on the disk. What happened to it later the digests
tell, those of the files before Orbax reads them (it returns wrong values from damaged files, or
fails in ways that look like failures of the machine), the other one of what it returned.
One process at a time may save into a directory.
"""

import contextlib
import hashlib
import json
import logging
import operator
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbo_lab import files, json_files
from elbo_lab.errors import DamageWarning, UserError
from elbo_lab.training import checkpoint_folders

_MANIFEST, _NOTE = "manifest.json", "note.json"
_MANIFEST_KIND = {"leaves": list[list], "digest": str, "files": dict[str, str]}


class CheckpointWarning(DamageWarning):
    """A checkpoint was damaged (deleted by `restore`, skipped by `read`), or is not of this run and
    was set aside.
    """


class _DamagedError(Exception):
    """The files of a checkpoint are not as they were written."""


def save(directory, step: int, state, *, keep: int = 2, note: dict[str, Any] | None = None) -> None:
    """Writes `state` as the checkpoint of `step`; on return it is complete and on the disk.

    Whatever interrupts it, the directory holds the old checkpoints or the new ones. Saving a step
    again replaces it.

    Args:
      directory: where the checkpoints lie; created if need be.
      step: number of steps done, at least 0 and not below the newest checkpoint's.
      state: pytree of JAX or numpy arrays, typed PRNG keys among them.
      keep: how many of the newest steps stay.
      note: for `read_note`: what JSON can hold, see `files.jsonable`.

    Raises:
      UserError: the directory cannot be written (the earlier checkpoints stay), it holds a later
        step, or a leaf is no array that JAX can hold.
    """
    step, root = operator.index(step), os.path.abspath(directory)
    if step < 0 or keep < 1:
        raise UserError(f"a checkpoint needs step >= 0 and keep >= 1, not {step} and {keep}")
    manifest, arrays = _to_host(state)
    try:
        os.makedirs(root, exist_ok=True)
        checkpoint_folders.remove_leftovers(root)
        folders = checkpoint_folders.listed(root)
        if folders and folders[0][0] > step:
            raise UserError(
                f"{root} already holds a checkpoint of step {folders[0][0]}, later than {step}: "
                "resume from it, or choose another directory"
            )
        _write(checkpoint_folders.free_name(root, step), manifest, arrays, note)
        checkpoint_folders.prune(root, keep)
    except UserError:
        raise
    except Exception as error:
        if checkpoint_folders.os_code(error) is None:
            raise
        raise UserError(
            f"cannot save a checkpoint in {root}: {checkpoint_folders.reason(error)}"
        ) from error


def restore(
    directory,
    like,
    *,
    others: Sequence[Any] = (),
    refusal: Callable[[int, Any], str] = lambda step, state: "",
):
    """Reads the newest checkpoint that is whole; deletes damaged ones, with a warning for each.

    Args:
      directory: where the checkpoints lie; it need not exist.
      like: pytree of arrays or ShapeDtypeStructs with the structure, shapes and types of the state.
      others: what a state may be like instead, such as those of earlier versions. Each checkpoint
        is read like the first whose arrays have the same names.
      refusal: (step, state) -> why a whole checkpoint cannot be of this run, "" if it can. Such a
        one is renamed, so that it is in the way of none, with a warning.

    Returns:
      (step, state): JAX arrays on the default device; None if there is no checkpoint.

    Raises:
      UserError: the checkpoint is whole but like none of these, or it cannot be read
        for reasons other than damage. Nothing is deleted then.
    """
    root = os.path.abspath(directory)
    while folders := checkpoint_folders.listed(root):
        step, _, folder = folders[0]
        try:
            state, _ = _read_state(folder, like, *others)
        except _DamagedError as error:
            checkpoint_folders.discard(folder)
            _warn(f"deleted the damaged checkpoint {folder}: {error}")
            continue
        reason = refusal(step, state)
        if not reason:
            return step, state
        _warn(
            f"set aside the checkpoint {folder} as {checkpoint_folders.set_aside(folder)}: {reason}"
        )
    return None


def read(directory, like, *, others: Sequence[Any] = ()):
    """Reads the newest checkpoint that is whole and changes no file; warns of each damaged one.

    Args:
      directory: see `restore`.
      like: see `restore`.
      others: see `restore`.

    Returns:
      (step, state, digest of its arrays); None if there is no whole checkpoint.

    Raises:
      UserError: see `restore`.
    """
    for step, _, folder in checkpoint_folders.listed(os.path.abspath(directory)):
        try:
            state, digest = _read_state(folder, like, *others)
        except _DamagedError as error:
            _warn(f"skipped the damaged checkpoint {folder}: {error}")
            continue
        return step, state, digest
    return None


def read_note(directory) -> dict[str, Any] | None:
    """The note of the newest checkpoint whose manifest is sound; {} if it was saved without one.

    Returns:
      None if there is no such checkpoint: what is in the directory need not be checkpoints.

    Raises:
      UserError: the directory cannot be listed.
    """
    for _, _, folder in checkpoint_folders.listed(os.path.abspath(directory)):
        try:
            manifest = json_files.read(os.path.join(folder, _MANIFEST), _MANIFEST_KIND)
            if _NOTE not in manifest["files"]:
                return {}
            path = os.path.join(folder, _NOTE)
            if checkpoint_folders.sha256(path) == manifest["files"][_NOTE]:
                return json_files.read(path, dict)
        except (UserError, OSError):
            continue
    return None


def _read_state(folder, like, *others):
    """The state of a whole checkpoint on the device, and its digest.

    Raises:
      _DamagedError: it is damaged.
      UserError: it cannot be read for another reason, or is like none of the trees.
    """
    try:
        manifest, arrays = _read(folder)
    except _DamagedError:
        raise
    except Exception as error:
        if checkpoint_folders.os_code(error) is None:
            raise
        raise UserError(f"cannot read {folder}: {checkpoint_folders.reason(error)}") from error
    template = _same_names(manifest["leaves"], like, *others)
    return _to_device(folder, manifest["leaves"], arrays, template), manifest["digest"]


def _warn(sentence: str) -> None:
    warnings.warn(sentence, CheckpointWarning, stacklevel=3)


def _is_key(dtype) -> bool:
    return jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def _describe(tree):
    """Flattens to leaves and their [path, type, shape], the canonical order of the digest."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    specs = []
    for path, leaf in flat:
        name = jax.tree_util.keystr(path) or "(the whole state)"
        if not (hasattr(leaf, "dtype") and hasattr(leaf, "shape")):
            raise UserError(f"checkpoint leaf {name} is a {type(leaf).__name__}, not an array")
        if not _is_key(leaf.dtype) and jax.dtypes.canonicalize_dtype(leaf.dtype) != leaf.dtype:
            raise UserError(f"checkpoint leaf {name} is {leaf.dtype}, which needs jax_enable_x64")
        specs.append([name, str(leaf.dtype), [int(size) for size in leaf.shape]])
    return [leaf for _, leaf in flat], specs


def _digest(specs, arrays) -> str:
    digest = hashlib.sha256(json.dumps(specs).encode())
    for number in sorted(arrays, key=int):
        array = arrays[number]
        digest.update(f"{number} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _to_host(state):
    """Returns the manifest and, by number, all arrays that have elements (Orbax refuses others)."""
    leaves, specs = _describe(state)
    leaves = [jax.random.key_data(leaf) if _is_key(leaf.dtype) else leaf for leaf in leaves]
    # numpy arrays, for which Orbax needs no sharding files.
    arrays = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.device_get(leaves))}
    arrays = {number: array for number, array in arrays.items() if array.size}
    return {"leaves": specs, "digest": _digest(specs, arrays)}, arrays


def _same_names(specs, *trees):
    """The first of some trees that has arrays of these names; the first of all if none has."""
    names = {name for name, _, _ in specs}
    same = (tree for tree in trees if {name for name, _, _ in _describe(tree)[1]} == names)
    return next(same, trees[0])


def _to_device(folder, specs, arrays, like):
    """Puts what was read into the structure of `like`, or says what does not fit."""
    templates, wanted = _describe(like)
    there, here = ({name: f"{kind}{shape}" for name, kind, shape in s} for s in (specs, wanted))
    for name in here | there:
        found, expected = there.get(name, "absent"), here.get(name, "absent")
        if found != expected:
            raise UserError(
                f"checkpoint {folder} is of another state: "
                f"{name} is {found} there and {expected} here"
            )
    numbers = {name: str(i) for i, (name, _, _) in enumerate(specs)}
    leaves = [
        _place(arrays.get(numbers[name]), template)
        for (name, _, _), template in zip(wanted, templates, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _place(array, template):
    if array is None:
        return jnp.empty(template.shape, template.dtype)
    # A true copy: the training loop donates its state, and numpy's memory must not be donated.
    array = jax.device_put(array, may_alias=False)
    if not _is_key(template.dtype):
        return array
    # A ShapeDtypeStruct does not tell its key implementation, an array of its type does.
    impl = jax.random.key_impl(jnp.empty((), template.dtype))
    return jax.random.wrap_key_data(array, impl=impl)


@contextlib.contextmanager
def _orbax():
    """Yields a checkpointer that prints nothing of its own (its errors arrive as exceptions)."""
    logger = logging.getLogger("absl")

    def keep(record):
        # Some lines of Orbax's threads carry the path of absl itself.
        return not any(f"{os.sep}{name}{os.sep}" in record.pathname for name in ("orbax", "absl"))

    logger.addFilter(keep)
    _silence_late_writes()
    try:
        import orbax.checkpoint as ocp  # Half a second that starting a run does not have.

        # With several processes, the one that is here saves alone, and waits for no other.
        this = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=this,
            active_processes={this} if jax.process_count() > 1 else None,
            barrier_sync_key_prefix=f"process_{this}",
        )
        handler = ocp.PyTreeCheckpointHandler(
            use_ocdbt=True, use_zarr3=True, use_compression=False, multiprocessing_options=alone
        )
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as orbax:
            yield orbax
    finally:
        logger.removeFilter(keep)


def _silence_late_writes():
    """Drops what TensorStore's threads print about writes that end after Orbax gave up on them."""
    inner = sys.unraisablehook
    if getattr(inner, "silences_late_writes", False):
        return

    def hook(unraisable):
        # The loop of a failed save is closed before all of its writes have ended.
        if str(unraisable.exc_value) != "Event loop is closed":
            inner(unraisable)

    hook.silences_late_writes = True
    sys.unraisablehook = hook


def _write(folder, manifest, arrays, note):
    unfinished = f"{folder}.saving"
    try:
        with _orbax() as orbax:
            orbax.save(unfinished, arrays)
        if note is not None:
            with open(os.path.join(unfinished, _NOTE), "w") as file:
                json.dump(files.jsonable(note), file, indent=1)
        digests = {
            os.path.relpath(path, unfinished): checkpoint_folders.sha256(path)
            for path in checkpoint_folders.files(unfinished)
        }
        with open(os.path.join(unfinished, _MANIFEST), "w") as file:
            json.dump({**manifest, "files": digests}, file, indent=1)
        checkpoint_folders.sync(unfinished)
        os.rename(unfinished, folder)
        checkpoint_folders.flush(os.path.dirname(folder))
    except BaseException:
        with contextlib.suppress(OSError):
            checkpoint_folders.remove_leftovers(os.path.dirname(folder))
        raise


def _read(folder):
    """Returns manifest and arrays, verified; raises _DamagedError, or the machine's errors."""
    try:
        with open(os.path.join(folder, _MANIFEST), "rb") as file:
            manifest = files.parse_json(file.read())
        fault = json_files.fault(manifest, _MANIFEST_KIND)
        if fault or not manifest["files"]:
            raise _DamagedError(f"{_MANIFEST}: {fault or 'it lists no files'}")
        for name, digest in manifest["files"].items():
            if checkpoint_folders.sha256(os.path.join(folder, name)) != digest:
                raise _DamagedError(f"{name} has changed")
    except ValueError as error:
        raise _DamagedError(f"{_MANIFEST} has changed") from error
    except OSError as error:
        if error.errno in checkpoint_folders.DAMAGE_CODES:
            name = os.path.relpath(error.filename or folder, folder)
            raise _DamagedError(f"{name}: {error.strerror}") from error
        raise
    with _orbax() as orbax:
        arrays = orbax.restore(folder)
    if _digest(manifest["leaves"], arrays) != manifest["digest"]:
        raise _DamagedError("its digest does not match its contents")
    return manifest, arrays
