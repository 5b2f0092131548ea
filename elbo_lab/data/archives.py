"""Archives of arrays on disk."""

import zipfile
import zlib

# What reading a damaged .npz raises; NotImplementedError comes from a flag's or a method's bit.
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
)
