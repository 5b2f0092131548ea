"""Checkpoints that are whole or absent: written atomically, verified when read.

    directory/step_00001000/   an Orbax tree (OCDBT, Zarr 3) of numpy arrays: {"0": ..., "1": ...}
        manifest.json          {"leaves": [[path, type, shape], ...] in the same order,
                                "digest": SHA-256 of that and of the arrays' bytes,
                                "files": {path: SHA-256 of every file of Orbax}}

Typed keys are saved as their key data, and arrays without elements not at all. A folder with such a
name is complete: it is renamed when all of it is on the disk. What happened to it later the digests
tell, those of the files before Orbax reads them (it returns wrong values from damaged files, or
fails in ways that look like failures of the machine), the other one of what it returned.
One process at a time may save into a directory.
"""

import contextlib
import errno
import hashlib
import json
import logging
import operator
import os
import re
import shutil
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from elbo_lab.errors import UserError

# A step saved again gets ".1", ".2", ...: the old one has to stay until the new one is whole.
_STEP = re.compile(r"step_(\d{8,})(?:\.(\d+))?")
_LEFTOVER = re.compile(r"step_\d{8,}(\.\d+)?\.(saving(\.orbax-checkpoint-tmp.*)?|removed)")
_MANIFEST = "manifest.json"
_OS_CODE = re.compile(r"os_error_code='?(\d+)")
# What the system says about files that are missing or are not what they should be. Every other
# error number (no permission, input/output error, too many open files) says nothing about them.
_DAMAGE_CODES = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENAMETOOLONG}
_STATUS = {
    "PERMISSION_DENIED": errno.EACCES,
    "RESOURCE_EXHAUSTED": errno.ENOMEM,
    "UNAVAILABLE": errno.EIO,
    **{os.strerror(code): code for code in (errno.EACCES, errno.EIO, errno.ENOSPC, errno.EROFS)},
}


class CheckpointWarning(UserWarning):
    """A checkpoint was damaged or incomplete, and was deleted."""


class _DamagedError(Exception):
    """The files of a checkpoint are not as they were written."""


def save(directory, step: int, state, *, keep: int = 2) -> None:
    """Writes `state` as the checkpoint of `step`; on return it is complete and on the disk.

    Whatever interrupts it, the directory holds the old checkpoints or the new ones. Saving a step
    again replaces it.

    Args:
      directory: where the checkpoints lie; created if need be.
      step: number of steps done, at least 0 and not below the newest checkpoint's.
      state: pytree of JAX or numpy arrays, typed PRNG keys among them.
      keep: how many of the newest steps stay.

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
        _remove_leftovers(root)
        folders = _folders(root)
        if folders and folders[0][0] > step:
            raise UserError(
                f"{root} already holds a checkpoint of step {folders[0][0]}, later than {step}: "
                "resume from it, or choose another directory"
            )
        attempts = [attempt for other, attempt, _ in folders if other == step]
        suffix = f".{max(attempts) + 1}" if attempts else ""
        folder = os.path.join(root, f"step_{step:08d}{suffix}")
        _write(folder, manifest, arrays)
        _prune(root, keep)
    except UserError:
        raise
    except Exception as error:
        if _os_code(error) is None:
            raise
        raise UserError(f"cannot save a checkpoint in {root}: {_reason(error)}") from error


def restore(directory, like):
    """Reads the newest checkpoint that is whole; deletes damaged ones, with a warning for each.

    Args:
      directory: where the checkpoints lie; it need not exist.
      like: pytree of arrays or ShapeDtypeStructs with the structure, shapes and types of the state.

    Returns:
      (step, state): JAX arrays on the default device; None if there is no checkpoint.

    Raises:
      UserError: the checkpoint is whole but of another structure than `like`, or it cannot be read
        for reasons other than damage. Nothing is deleted then.
    """
    root = os.path.abspath(directory)
    while folders := _folders(root):
        step, _, folder = folders[0]
        try:
            manifest, arrays = _read(folder)
        except _DamagedError as error:
            _discard(folder)
            warnings.warn(
                f"deleted the damaged checkpoint {folder}: {error}", CheckpointWarning, stacklevel=2
            )
        except Exception as error:
            if _os_code(error) is None:
                raise
            raise UserError(f"cannot read {folder}: {_reason(error)}") from error
        else:
            return step, _to_device(folder, manifest["leaves"], arrays, like)
    return None


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

        # Of several processes the one that is here saves alone, and waits for no other.
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


def _write(folder, manifest, arrays):
    unfinished = f"{folder}.saving"
    try:
        with _orbax() as orbax:
            orbax.save(unfinished, arrays)
        files = {os.path.relpath(path, unfinished): _hash(path) for path in _files(unfinished)}
        with open(os.path.join(unfinished, _MANIFEST), "w") as file:
            json.dump({**manifest, "files": files}, file, indent=1)
        _sync(unfinished)
        os.rename(unfinished, folder)
        _flush(os.path.dirname(folder))
    except BaseException:
        with contextlib.suppress(OSError):
            _remove_leftovers(os.path.dirname(folder))
        raise


def _read(folder):
    """Returns manifest and arrays, verified; raises _DamagedError, or the machine's errors."""
    try:
        with open(os.path.join(folder, _MANIFEST), "rb") as file:
            manifest = json.load(file)
        for name, digest in manifest["files"].items():
            if _hash(os.path.join(folder, name)) != digest:
                raise _DamagedError(f"{name} has changed")
        specs, digest = manifest["leaves"], manifest["digest"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _DamagedError(f"{_MANIFEST} has changed") from error
    except OSError as error:
        if error.errno in _DAMAGE_CODES:
            name = os.path.relpath(error.filename or folder, folder)
            raise _DamagedError(f"{name}: {error.strerror}") from error
        raise
    with _orbax() as orbax:
        arrays = orbax.restore(folder)
    if _digest(specs, arrays) != digest:
        raise _DamagedError("its digest does not match its contents")
    return manifest, arrays


def _files(folder):
    return [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]


def _hash(path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder):
    """Forces all of a folder to the disk, which Orbax does not."""
    for path in [*_files(folder), *(at for at, _, _ in os.walk(folder))]:
        _flush(path)


def _flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folders(root):
    """Lists the finished checkpoints, newest first: (step, attempt, path)."""
    try:
        entries = [entry for entry in os.scandir(root) if entry.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot list the checkpoints in {root}: {_reason(error)}") from error
    named = [(_STEP.fullmatch(entry.name), entry.path) for entry in entries]
    found = [(int(match[1]), int(match[2] or 0), path) for match, path in named if match]
    return sorted(found, reverse=True)


def _prune(root, keep):
    kept = set()
    for step, _, folder in _folders(root):
        if step in kept or len(kept) >= keep:
            _discard(folder)
        kept.add(step)


def _discard(folder):
    """Removes a checkpoint: first its name, at once, then the rest, which may be interrupted."""
    removed = f"{folder}.removed"
    try:
        os.rename(folder, removed)
        shutil.rmtree(removed)
    except FileNotFoundError:
        pass  # Another process was faster.
    except OSError as error:
        raise UserError(f"cannot remove {folder}: {_reason(error)}") from error


def _remove_leftovers(root):
    for entry in os.scandir(root):
        if _LEFTOVER.fullmatch(entry.name):
            shutil.rmtree(entry.path)


def _os_code(error) -> int | None:
    """The operating system's error number in an error of Python, Orbax or TensorStore."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if match := _OS_CODE.search(text):
        return int(match[1])
    return next((code for words, code in _STATUS.items() if words in text), None)


def _reason(error) -> str:
    code = _os_code(error)
    if code is not None:
        return os.strerror(code)
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
