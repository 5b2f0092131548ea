"""Training curves survive kills, full disks and NaN, and TensorBoard reads them."""

import math
import os
import struct
import subprocess
import sys

import numpy as np
import pytest

from elbo_lab.errors import DamageWarning, UserError
from elbo_lab.training import events
from elbo_lab.training.metrics import MetricLog, missing_steps, read_metrics


def records(first: int, last: int) -> list[dict]:
    return [{"step": step, "bound": -100.0 - 1 / step, "kl": 20.0} for step in range(first, last)]


def write(workdir, resume_step: int, new: list[dict], tensorboard: bool = False) -> bytes:
    with MetricLog(workdir, resume_step, tensorboard) as log:
        for record in new:
            log.write(record)
    return (workdir / "metrics.jsonl").read_bytes()


def scalars(workdir) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value) of each event, by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(workdir / "tensorboard"), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def test_records_come_back_as_written(tmp_path):
    new = [
        {"step": 10, "bound": np.float32(-1.1), "kl": [0.1, 0.2]},
        {"step": np.int64(20), "bound": -1 / 3, "kl": np.array([1e-30, 2.0])},
    ]
    content = write(tmp_path / "made" / "here", -1, new)
    assert content.count(b"\n") == 2
    assert read_metrics(tmp_path / "made" / "here") == [
        {"step": 10, "bound": float(np.float32(-1.1)), "kl": [0.1, 0.2]},
        {"step": 20, "bound": -1 / 3, "kl": [1e-30, 2.0]},
    ]


def test_each_record_is_in_the_file_at_once(tmp_path):
    with MetricLog(tmp_path, -1, tensorboard=False) as log:
        for count, record in enumerate(records(1, 5), start=1):
            log.write(record)
            assert len(read_metrics(tmp_path)) == count


def test_non_finite_numbers_are_null_in_the_file_and_nan_when_read(tmp_path):
    new = [{"step": 1, "bound": math.nan, "kl": [math.inf, -math.inf, np.float32(1.5)]}]
    content = write(tmp_path, -1, new)
    assert content == b'{"step": 1, "bound": null, "kl": [null, null, 1.5]}\n'
    (record,) = read_metrics(tmp_path)
    assert math.isnan(record["bound"])
    np.testing.assert_array_equal(record["kl"], [math.nan, math.nan, 1.5])
    assert write(tmp_path, 1, []) == content


@pytest.mark.parametrize(
    "record",
    [{"bound": 1.0}, {"step": 1.5}, {"step": 1, "bound": "low"}, {"step": 1, "bound": [[1.0]]}, 3],
)
def test_malformed_records_are_refused_and_not_written(tmp_path, record):
    with MetricLog(tmp_path, -1, tensorboard=False) as log, pytest.raises(ValueError):
        log.write(record)
    assert read_metrics(tmp_path) == []


def test_no_file_means_no_records(tmp_path):
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize("killed_at", [5, 6, 9])
def test_resuming_equals_never_having_stopped(tmp_path, killed_at):
    whole = write(tmp_path / "whole", -1, records(1, 10))
    write(tmp_path / "killed", -1, records(1, killed_at + 1))
    assert write(tmp_path / "killed", 5, records(6, 10)) == whole


def test_resuming_at_every_byte_where_a_kill_may_have_cut_the_file(tmp_path):
    content = write(tmp_path, -1, records(1, 4))
    path = tmp_path / "metrics.jsonl"
    for end in range(content.index(b"\n") + 1, len(content) + 1):
        path.write_bytes(content[:end])
        assert write(tmp_path, 1, records(2, 4)) == content
    # A line that only lacks its end of line is whole.
    path.write_bytes(content[:-1])
    assert write(tmp_path, 3, []) == content


def test_a_fresh_start_keeps_nothing(tmp_path):
    write(tmp_path, -1, [{"step": 0, "bound": -500.0}, *records(1, 4)], tensorboard=True)
    assert write(tmp_path, -1, records(1, 2), tensorboard=True).count(b"\n") == 1
    assert [step for step, _ in scalars(tmp_path)["bound"]] == [1]


@pytest.mark.parametrize(
    "damaged",
    [
        *(b"\x00\xff\x00\n", b"{}\n", b"5\n", b'{"step": 2, "b\n', b"\n"),
        b"[" * 900 + b"]" * 900 + b"\n",  # deeper than Python recurses
        b'{"step": true, "bound": 1, "kl": 1}\n',
        b'{"step": 1, "bound": 1, "kl": 1}\n',  # twice
        b'{"step": 1.5, "bound": 1, "kl": 1}\n',
        b'{"step": 2, "bound": 1}\n',  # without kl
        b'{"step": 2, "bound": 1, "kl": [1, 2]}\n',  # of other replicates
        b'{"step": 2, "bound": 1, "kl": 1' + b"0" * 400 + b"}\n",  # beyond float64
    ],
)
def test_a_damaged_line_among_others_is_left_out_with_a_warning(tmp_path, damaged):
    content = write(tmp_path, -1, records(1, 4))
    first = content.index(b"\n") + 1
    (tmp_path / "metrics.jsonl").write_bytes(content[:first] + damaged + content[first:])
    with pytest.warns(DamageWarning, match="line 2 is damaged"):
        assert read_metrics(tmp_path, ("bound", "kl")) == records(1, 4)


def test_many_damaged_lines_give_one_warning(tmp_path):
    write(tmp_path, -1, records(1, 9))
    with pytest.warns(DamageWarning, match="7 lines .* the first is line 1") as caught:
        assert read_metrics(tmp_path, ("seconds",)) == []
    assert len(caught) == 1


@pytest.mark.parametrize("lost", [(), (1,), (1, 2, 5), (3, 4), (5,), (4, 5), range(1, 6)])
@pytest.mark.parametrize("last", [20, 18])
def test_steps_that_no_line_covers(lost, last):
    """Five lines of four steps each, the last one perhaps of two."""
    ends = [4, 8, 12, 16, last]
    kept = [{"step": end} for line, end in enumerate(ends, start=1) if line not in lost]
    ranges = missing_steps(kept, last, 4)
    missing = {step for first, end in ranges for step in range(first, end + 1)}
    starts = [0, *ends[:-1]]
    expected = {s for line in lost for s in range(starts[line - 1] + 1, ends[line - 1] + 1)}
    assert missing == expected
    assert len(ranges) == sum(s - 1 not in expected for s in expected)


@pytest.mark.parametrize("damage", ["deleted", "emptied", "torn"])
def test_a_file_that_is_damaged_while_it_is_written_loses_no_later_line(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    with MetricLog(tmp_path, -1, tensorboard=False) as log:
        for record in records(1, 5):
            log.write(record)
        if damage == "deleted":
            path.unlink()
        else:
            os.truncate(path, 0 if damage == "emptied" else path.stat().st_size - 9)
        for record in records(5, 8):
            log.write(record)
            log.sync()
    if damage != "torn":
        assert read_metrics(tmp_path) == records(5, 8)
        return
    with pytest.warns(DamageWarning, match="line 4 is damaged"):
        remaining = read_metrics(tmp_path)
    assert remaining == records(1, 4) + records(5, 8)
    assert missing_steps(remaining, 7, 1) == [(4, 4)]


def test_tensorboard_reads_the_same_numbers(tmp_path):
    write(tmp_path, -1, records(1, 20), tensorboard=True)
    curves = scalars(tmp_path)
    assert set(curves) == {"bound", "kl"}
    assert curves["bound"] == [(r["step"], pytest.approx(r["bound"])) for r in records(1, 20)]


def test_tensorboard_has_no_duplicates_after_resuming_twice(tmp_path):
    write(tmp_path, -1, records(1, 8), tensorboard=True)
    write(tmp_path, 5, records(6, 8), tensorboard=True)
    write(tmp_path, 3, records(4, 10), tensorboard=True)
    assert len(os.listdir(tmp_path / "tensorboard")) == 1
    assert [step for step, _ in scalars(tmp_path)["bound"]] == list(range(1, 10))


def test_resuming_a_complete_run_keeps_its_events(tmp_path):
    write(tmp_path, -1, records(1, 4), tensorboard=True)
    write(tmp_path, 3, [], tensorboard=True)
    assert [step for step, _ in scalars(tmp_path)["kl"]] == [1, 2, 3]


def test_replicates_are_events_beside_their_mean(tmp_path):
    new = [{"step": 1, "bound": [-1.0, -3.0]}, {"step": 2, "bound": [-1.0, math.nan]}]
    write(tmp_path, -1, new, tensorboard=True)
    curves = scalars(tmp_path)
    assert set(curves) == {"bound", "bound/replicate_0", "bound/replicate_1"}
    assert curves["bound"] == [(1, -2.0), (2, -1.0)]
    assert curves["bound/replicate_0"] == [(1, -1.0), (2, -1.0)]
    np.testing.assert_array_equal(curves["bound/replicate_1"], [(1, -3.0), (2, math.nan)])


def test_other_files_beside_the_events_stay(tmp_path):
    write(tmp_path, -1, records(1, 3), tensorboard=True)
    (tmp_path / "tensorboard" / "notes.txt").write_text("mine")
    write(tmp_path, 2, [], tensorboard=True)
    assert (tmp_path / "tensorboard" / "notes.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        MetricLog(tmp_path / "file" / "run", -1)
    assert str(caught.value) == f"cannot create {tmp_path}/file/run/tensorboard: Not a directory"


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError) as caught:
        MetricLog(tmp_path, -1)
    assert str(caught.value) == f"cannot read {tmp_path}/metrics.jsonl: Is a directory"


@pytest.mark.parametrize("tensorboard", [False, True])
def test_a_full_disk_is_one_sentence_and_can_be_resumed_from(
    tmp_path, tensorboard, file_size_limit
):
    whole = write(tmp_path / "whole", -1, records(1, 10))
    write(tmp_path / "run", -1, records(1, 4), tensorboard)
    log = MetricLog(tmp_path / "run", 3, tensorboard)
    size = (tmp_path / "run" / "metrics.jsonl").stat().st_size
    with file_size_limit(size + 30), pytest.raises(UserError, match="cannot write .*: File too"):
        log.write(records(4, 5)[0])
    log.close()
    assert write(tmp_path / "run", 3, records(4, 10), tensorboard) == whole


def test_a_disk_that_fills_in_the_event_file_is_one_sentence(tmp_path, file_size_limit):
    with MetricLog(tmp_path, -1) as log:
        with file_size_limit(100), pytest.raises(UserError) as caught:
            # A short line in the file of records, but more than 100 bytes of events.
            log.write({"step": 1, "a_name_of_thirty_characters_00": [1, 2, 3, 4]})
    assert str(caught.value) == f"cannot write in {tmp_path}/tensorboard: File too large"
    assert len(read_metrics(tmp_path)) == 1


def test_nothing_heavy_is_imported_for_events(tmp_path):
    code = f"""
import sys
from elbo_lab.training.metrics import MetricLog
with MetricLog({str(tmp_path)!r}, -1) as log:
    log.write({{"step": 1, "bound": -1.0}})
heavy = ("jax", "tensorflow", "tensorboard", "tensorboardX", "torch", "google.protobuf", "orbax")
print([m for m in heavy if m in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr
    assert scalars(tmp_path) == {"bound": [(1, -1.0)]}


def test_events_are_tensorboards_messages_in_tensorflows_framing():
    from tensorboard.compat.proto.event_pb2 import Event

    values = [("bound/réplique_0", -1.25), ("kl", math.nan), ("high", 1e300), ("low", -1e300)]
    record = events.scalars_event(1e9 + 0.5, 2**40 + 3, values)
    (length,) = struct.unpack("<Q", record[:8])
    data = record[12:-4]
    assert len(data) == length
    event = Event.FromString(data)
    assert (event.wall_time, event.step) == (1e9 + 0.5, 2**40 + 3)
    got = [(value.tag, value.simple_value) for value in event.summary.value]
    expected = [("bound/réplique_0", -1.25), ("kl", math.nan), ("high", math.inf)]
    np.testing.assert_equal(got, [*expected, ("low", -math.inf)])
    # CRC-32C of "123456789" is 0xE3069283 in every table of check values; TensorFlow's mask rotates
    # it to the right by 15 bits and adds a constant.
    crc = 0xE3069283
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
    assert events._masked_crc(b"123456789") == struct.pack("<I", masked)
