"""Folders of checkpoints: their names, operations on them, and errors of the file system.

step_00001000          a finished checkpoint; saved again it is step_00001000.1, .2, ...
step_00001000.saving   being written, or left by a killed process
step_00001000.removed  being removed, or left by a killed process
set_aside_step_...     whole, but belongs to another run
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil

from elbo_lab.errors import UserError

# A step saved again gets ".1", ".2", ...: the old checkpoint must stay until the new one is whole.
_STEP = re.compile(r"step_(\d{8,})(?:\.(\d+))?")
_LEFTOVER = re.compile(r"step_\d{8,}(\.\d+)?\.(saving(\.orbax-checkpoint-tmp.*)?|removed)")
_OS_CODE = re.compile(r"os_error_code='?(\d+)")
# Error numbers that mean a file is missing or is not what it should be. All others (no permission,
# input/output error, too many open files) are the machine's, and say nothing about the file.
DAMAGE_CODES = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENAMETOOLONG}
# Words in the messages of Orbax and TensorStore -> error number.
_CODE_OF_WORDS = {
    "PERMISSION_DENIED": errno.EACCES,
    "RESOURCE_EXHAUSTED": errno.ENOMEM,
    "UNAVAILABLE": errno.EIO,
    **{os.strerror(code): code for code in (errno.EACCES, errno.EIO, errno.ENOSPC, errno.EROFS)},
}


def files(folder):
    """The paths of all files in a folder."""
    return [os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names]


def sha256(path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(folder):
    """Forces all files and folders in a folder to the disk, since Orbax does not."""
    for path in files(folder):
        flush(path)
    for path, _, _ in os.walk(folder):
        flush(path)


def flush(path):
    """Forces a file's content, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_name(root, step) -> str:
    """The path of a step's new checkpoint, with a name that is not used yet."""
    attempts = []
    for name in os.listdir(root):
        match = _STEP.fullmatch(name)
        if match and int(match[1]) == step:
            attempts.append(int(match[2] or 0))
    suffix = f".{max(attempts) + 1}" if attempts else ""
    return os.path.join(root, f"step_{step:08d}{suffix}")


def set_aside(folder) -> str:
    """Renames a checkpoint so that it is not listed; returns the new name."""
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
    """Lists the finished checkpoints as (step, attempt, path), newest first."""
    try:
        entries = [entry for entry in os.scandir(root) if entry.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot list the checkpoints in {root}: {reason(error)}") from error
    checkpoints = []
    for entry in entries:
        if match := _STEP.fullmatch(entry.name):
            checkpoints.append((int(match[1]), int(match[2] or 0), entry.path))
    return sorted(checkpoints, reverse=True)


def prune(root, keep):
    """Removes all checkpoints but the last attempt of each of the newest `keep` steps."""
    kept = set()
    for step, _, folder in listed(root):
        if step not in kept and len(kept) < keep:
            kept.add(step)
        else:
            discard(folder)


def discard(folder):
    """Removes a checkpoint. It is renamed first, so that an interruption leaves no half of it."""
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
    """Removes folders that interrupted saves and removals have left."""
    for entry in os.scandir(root):
        if _LEFTOVER.fullmatch(entry.name):
            _delete(entry.path)


def _delete(path):
    """Removes a folder and its content, or a file, if it exists."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def os_code(error) -> int | None:
    """The operating system's number of an error of Python, Orbax or TensorStore; None if none."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if match := _OS_CODE.search(text):
        return int(match[1])
    for words, code in _CODE_OF_WORDS.items():
        if words in text:
            return code
    return None


def reason(error) -> str:
    """The error in a few words: the system's for its number, else the message's first line."""
    code = os_code(error)
    if code is not None:
        return os.strerror(code)
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
