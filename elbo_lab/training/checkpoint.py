"""Checkpoints that are whole or absent: written atomically, verified when read.

    directory/step_00001000/   an Orbax tree (OCDBT, Zarr 3) of numpy arrays: {"0": ..., "1": ...}
        manifest.json          {"leaves": [[path, type, shape], ...] in the same order,
                                "digest": SHA-256 of that and of the arrays' bytes,
                                "files": {path: SHA-256 of every other file}}
        note.json              what the caller wants to find beside the state

Typed keys are saved as their key data. Arrays without elements are not saved. A folder with such a
name is complete: it gets its name when all of it is on the disk. Later damage is found by the
digests. Those of the files are checked before Orbax reads them, because from damaged files it
returns wrong values, or fails in ways that look like failures of the machine; the digest of the
arrays is checked on what it returned. Only one process at a time may save into a directory.
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
    """A checkpoint was damaged (deleted by `restore`, skipped by `read`), or belongs to another run
    and was renamed.
    """


class _DamagedError(Exception):
    """The files of a checkpoint are not as they were written."""


def save(directory, step: int, state, *, keep: int = 2, note: dict[str, Any] | None = None) -> None:
    """Writes `state` as the checkpoint of `step`; on return it is complete and on the disk.

    Whenever it is interrupted, the directory holds the old checkpoints or the new ones, complete.
    Saving a step again replaces it.

    Args:
      directory: the folder of checkpoints; created if need be.
      step: number of steps done, at least 0 and not below the newest checkpoint's.
      state: pytree of JAX or numpy arrays, including typed PRNG keys.
      keep: number of newest steps whose checkpoints stay.
      note: what `read_note` returns later, of types that `files.jsonable` takes.

    Raises:
      UserError: the directory cannot be written (the earlier checkpoints stay), it holds a later
        step, or a leaf is not an array that JAX can hold.
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
      directory: the folder of checkpoints; it need not exist.
      like: pytree of arrays or ShapeDtypeStructs with the structure, shapes and types of the state.
      others: other structures that the state may have, such as those of earlier versions. A
        checkpoint is read as the first of `like` and `others` whose arrays have the same names.
      refusal: (step, state) -> the reason why a whole checkpoint cannot belong to this run, "" if
        it can. A refused checkpoint is renamed, with a warning, and the next one is read.

    Returns:
      (step, state): JAX arrays on the default device; None if there is no checkpoint.

    Raises:
      UserError: the checkpoint is whole but has none of these structures, or it cannot be read for
        a reason other than damage. Nothing is deleted then.
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
        new_name = checkpoint_folders.set_aside(folder)
        _warn(f"set aside the checkpoint {folder} as {new_name}: {reason}")
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
    """Reads the note of the newest checkpoint whose manifest and note are undamaged.

    Returns:
      The note, {} if the checkpoint was saved without one; None if there is no such checkpoint.

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
    template = _with_same_names(manifest["leaves"], [like, *others])
    return _to_device(folder, manifest["leaves"], arrays, template), manifest["digest"]


def _warn(sentence: str) -> None:
    warnings.warn(sentence, CheckpointWarning, stacklevel=3)


def _is_key(dtype) -> bool:
    return jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def _describe(tree):
    """Returns a tree's leaves and their [path, type, shape], in the order that the digest uses."""
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
    """Returns the manifest without its files, and {leaf number: array}.

    Arrays without elements are left out, since Orbax refuses them.
    """
    leaves, specs = _describe(state)
    leaves = [jax.random.key_data(leaf) if _is_key(leaf.dtype) else leaf for leaf in leaves]
    # For numpy arrays Orbax writes no sharding files.
    arrays = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.device_get(leaves))}
    arrays = {number: array for number, array in arrays.items() if array.size}
    return {"leaves": specs, "digest": _digest(specs, arrays)}, arrays


def _with_same_names(specs, trees):
    """The first tree whose leaves have the paths in `specs`; the first of all if none has."""
    names = {name for name, _, _ in specs}
    for tree in trees:
        if {name for name, _, _ in _describe(tree)[1]} == names:
            return tree
    return trees[0]


def _to_device(folder, specs, arrays, like):
    """Returns the arrays on the device in the structure of `like`.

    Raises:
      UserError: a leaf is missing or has another type or shape.
    """
    templates, like_specs = _describe(like)
    stored = {name: f"{dtype}{shape}" for name, dtype, shape in specs}
    expected = {name: f"{dtype}{shape}" for name, dtype, shape in like_specs}
    for name in expected | stored:
        there, here = stored.get(name, "absent"), expected.get(name, "absent")
        if there != here:
            raise UserError(
                f"checkpoint {folder} has another structure than this run's state: "
                f"{name} is {there} there and {here} here"
            )
    numbers = {name: str(i) for i, (name, _, _) in enumerate(specs)}
    leaves = [
        _place(arrays.get(numbers[name]), template)
        for (name, _, _), template in zip(like_specs, templates, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _place(array, template):
    """Returns a stored array (None: it has no elements) on the device, with the template's type."""
    if array is None:
        return jnp.empty(template.shape, template.dtype)
    # A copy, since the training loop donates its state and numpy's memory must not be donated.
    array = jax.device_put(array, may_alias=False)
    if not _is_key(template.dtype):
        return array
    # key_impl takes an array, and the template may be a ShapeDtypeStruct.
    impl = jax.random.key_impl(jnp.empty((), template.dtype))
    return jax.random.wrap_key_data(array, impl=impl)


@contextlib.contextmanager
def _orbax():
    """Yields a checkpointer without log lines; its errors arrive as exceptions."""
    logger = logging.getLogger("absl")

    def is_foreign(record):
        # Some log lines of Orbax's threads carry the path of absl itself.
        return not any(f"{os.sep}{name}{os.sep}" in record.pathname for name in ("orbax", "absl"))

    logger.addFilter(is_foreign)
    _silence_late_writes()
    try:
        import orbax.checkpoint as ocp  # half a second that a fresh run does not need

        # With several processes, this one saves alone and waits for no other.
        this_process = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=this_process,
            active_processes={this_process} if jax.process_count() > 1 else None,
            barrier_sync_key_prefix=f"process_{this_process}",
        )
        handler = ocp.PyTreeCheckpointHandler(
            use_ocdbt=True, use_zarr3=True, use_compression=False, multiprocessing_options=alone
        )
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as orbax:
            yield orbax
    finally:
        logger.removeFilter(is_foreign)


def _silence_late_writes():
    """Silences errors of TensorStore's writes that end after Orbax has given up on them."""
    inner = sys.unraisablehook
    if getattr(inner, "silences_late_writes", False):
        return

    def hook(unraisable):
        # Orbax closes the event loop of a failed save before all of its writes have ended.
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
    """Returns the verified manifest and arrays of a checkpoint.

    Raises:
      _DamagedError: a file is missing, or is not as it was written.
      OSError, ValueError: the machine failed, as Python or Orbax reports it.
    """
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
