"""TensorBoard's event files, written without TensorBoard, TensorFlow or protobuf.

A file is a sequence of records in TensorFlow's TFRecord framing:

    length (uint64), masked CRC-32C of length (uint32), data, masked CRC-32C of data (uint32)

all little-endian. The data are a serialized `Event` message, of which only these fields are used:

    Event   { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; }
    Summary { repeated Value value = 1; }
    Value   { string tag = 1; float simple_value = 2; }
"""

import math
import struct
from collections.abc import Sequence

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
_LARGEST = 3.4028234663852886e38  # the largest float32


def version_event(wall_time: float) -> bytes:
    """The first record of every event file."""
    return _record(_double(1, wall_time) + _bytes(3, b"brain.Event:2"))


def scalars_event(wall_time: float, step: int, scalars: Sequence[tuple[str, float]]) -> bytes:
    """The record of the scalars of one step.

    Args:
      wall_time: seconds since 1970.
      step: at least 0.
      scalars: pairs (tag, value); values beyond the range of float32 become infinite.
    """
    values = [_bytes(1, tag.encode()) + _float(2, value) for tag, value in scalars]
    summary = b"".join(_bytes(1, value) for value in values)
    return _record(_double(1, wall_time) + _varint(2 << 3) + _varint(step) + _bytes(5, summary))


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _masked_crc(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    rotated = (crc >> 15) | (crc << 17)
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = tuple(map(_crc_of_byte, range(256)))


# Protobuf's wire format: each value follows its key, field number << 3 | wire type. Wire types are
# 0 for a varint, 1 for 64 bits, 2 for bytes with their length before them, 5 for 32 bits.


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _float(field: int, value: float) -> bytes:
    single = math.copysign(math.inf, value) if abs(value) > _LARGEST else value
    return _varint(field << 3 | 5) + struct.pack("<f", single)
