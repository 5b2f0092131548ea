"""Arrays of an .npz file that stay in the file: mapped into memory, read where they are used."""

import os
import struct
import zipfile

import numpy as np


def mapped(path: str, name: str) -> np.memmap | None:
    """The array `name` of an .npz file as it lies there, read-only.

    Args:
      path: of a file that `numpy.savez` wrote; `numpy.load` has opened it without complaint.
      name: an array in it.

    Returns:
      None where it cannot be mapped: it is compressed, cut short, of Python objects, or not in the
      order of C. Unlike `numpy.load` this verifies no checksum, which would read all of it.
    """
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        member = archive.getinfo(f"{name}.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            return None
        # The header in front of the member may be longer than the archive's directory says.
        file.seek(member.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", file.read(4))
        file.seek(member.header_offset + 30 + name_length + extra_length)
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            return None
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, dtype = read_header(file)
        offset = file.tell()
        end = offset + dtype.itemsize * int(np.prod(shape))
        if dtype.hasobject or fortran_order or end > os.fstat(file.fileno()).st_size:
            return None
    return np.memmap(path, dtype, "r", offset, shape)
