"""The folders of checkpoints: their names, what is done with them, and errors of the file system.

step_00001000          a finished checkpoint; saved again it is step_00001000.1, .2, ...
step_00001000.saving   not finished yet, or left by a killed process
set_aside_step_...     whole, but of another run
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil

from elbo_lab.errors import UserError

# A step saved again gets ".1", ".2", ...: the old one has to stay until the new one is whole.
_STEP = re.compile(r"step_(\d{8,})(?:\.(\d+))?")
_LEFTOVER = re.compile(r"step_\d{8,}(\.\d+)?\.(saving(\.orbax-checkpoint-tmp.*)?|removed)")
_OS_CODE = re.compile(r"os_error_code='?(\d+)")
# What the system says about files that are missing or are not what they should be. Every other
# error number (no permission, input/output error, too many open files) says nothing about them.
DAMAGE_CODES = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENAMETOOLONG}
_STATUS = {
    "PERMISSION_DENIED": errno.EACCES,
    "RESOURCE_EXHAUSTED": errno.ENOMEM,
    "UNAVAILABLE": errno.EIO,
    **{os.strerror(code): code for code in (errno.EACCES, errno.EIO, errno.ENOSPC, errno.EROFS)},
}


def files(folder):
    """The paths of all files in a folder."""
    return [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]


def sha256(path) -> str:
    """The digest of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(folder):
    """Forces all of a folder to the disk, which Orbax does not."""
    for path in [*files(folder), *(at for at, _, _ in os.walk(folder))]:
        flush(path)


def flush(path):
    """Forces a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_name(root, step) -> str:
    """The folder of a new checkpoint: a name of the step's that nothing has yet."""
    matches = [match for match in map(_STEP.fullmatch, os.listdir(root)) if match]
    attempts = [int(match[2] or 0) for match in matches if int(match[1]) == step]
    suffix = f".{max(attempts) + 1}" if attempts else ""
    return os.path.join(root, f"step_{step:08d}{suffix}")


def set_aside(folder) -> str:
    """Gives a checkpoint a name that is no checkpoint's; returns it."""
    root, name = os.path.split(folder)
    free = f"set_aside_{name}"
    while os.path.lexists(os.path.join(root, free)):
        free += "_"
    try:
        os.rename(folder, os.path.join(root, free))
    except OSError as error:
        raise UserError(f"cannot rename {folder}: {reason(error)}") from error
    return free


def listed(root):
    """Lists the finished checkpoints, newest first: (step, attempt, path)."""
    try:
        entries = [entry for entry in os.scandir(root) if entry.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot list the checkpoints in {root}: {reason(error)}") from error
    named = [(_STEP.fullmatch(entry.name), entry.path) for entry in entries]
    found = [(int(match[1]), int(match[2] or 0), path) for match, path in named if match]
    return sorted(found, reverse=True)


def prune(root, keep):
    """Removes all checkpoints but the last one of each of the newest `keep` steps."""
    kept = set()
    for step, _, folder in listed(root):
        if step in kept or len(kept) >= keep:
            discard(folder)
        kept.add(step)


def discard(folder):
    """Removes a checkpoint: first its name, at once, then the rest, which may be interrupted."""
    removed = f"{folder}.removed"
    try:
        _delete(removed)
        os.rename(folder, removed)
        _delete(removed)
    except FileNotFoundError:
        pass  # Another process was faster.
    except OSError as error:
        raise UserError(f"cannot remove {folder}: {reason(error)}") from error


def remove_leftovers(root):
    """Removes what interrupted saves and removals have left."""
    for entry in os.scandir(root):
        if _LEFTOVER.fullmatch(entry.name):
            _delete(entry.path)


def _delete(path):
    """Removes a folder with all that is in it, or a file; nothing if there is none."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def os_code(error) -> int | None:
    """The operating system's error number in an error of Python, Orbax or TensorStore."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if match := _OS_CODE.search(text):
        return int(match[1])
    return next((code for words, code in _STATUS.items() if words in text), None)


def reason(error) -> str:
    """The error in a few words, the system's own where it has any."""
    code = os_code(error)
    if code is not None:
        return os.strerror(code)
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
