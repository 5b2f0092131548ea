"""Memory-mapped arrays of an .npz file."""

import os
import struct
import zipfile

import numpy as np

# Versions of the .npy format that can be mapped.
_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def mapped(path: str, name: str) -> np.memmap | None:
    """The array `name` of an .npz file, memory-mapped and read-only.

    Unlike `numpy.load`, this does not verify the checksum, which would read the whole array.

    Args:
      path: a file written by `numpy.savez`; `numpy.load` can open it.
      name: an array in the file.

    Returns:
      The array, or None if it cannot be mapped: it is compressed, truncated, of Python objects, or
      in Fortran order.
    """
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        member = archive.getinfo(f"{name}.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            return None
        # In the member's local header the lengths of file name and extra field are at byte 26, the
        # two start at byte 30, and the data follows. The central directory's lengths may differ.
        file.seek(member.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", file.read(4))
        file.seek(member.header_offset + 30 + name_length + extra_length)
        read_header = _HEADER_READERS.get(np.lib.format.read_magic(file))
        if read_header is None:
            return None
        shape, fortran_order, dtype = read_header(file)
        offset = file.tell()
        end = offset + dtype.itemsize * int(np.prod(shape))
        if dtype.hasobject or fortran_order or end > os.fstat(file.fileno()).st_size:
            return None
    return np.memmap(path, dtype, "r", offset, shape)
