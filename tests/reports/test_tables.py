"""Result tables, and JSON files that are valid and whole whatever they hold."""

import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from elbo_lab import files
from elbo_lab.errors import UserError
from elbo_lab.reports import tables
from elbo_lab.reports.tables import Result

TEST_LL = Result(
    name="log-likelihood",
    symbol="L_5000",
    value=-97.8312,
    standard_error=0.5123,
    over="images",
    unit="nats per image",
    bound="lower bound in expectation",
    k=5000,
    split="test",
    count=2000,
)
RESULTS = [
    Result("training bound", "L_5", -95.3123, unit="nats per image", k=5, split="train"),
    TEST_LL,
    Result("KL", "KL", 22.1012, 0.0996, "images", "nats per image", split="test", count=2000),
    Result("active units", "", 31, unit="units", split="test"),
    Result("wall time", "", 212.345, unit="s"),
    Result("training speed", "", 3121.4, unit="steps/s"),
]
TITLE = [
    ("objective", "iwae, k = 5, reparam estimator"),
    ("data", "mnist_small, dynamic binarization"),
]


def line_of(table: str, name: str) -> str:
    """The only line of a table that begins with a name."""
    (line,) = [line for line in table.split("\n") if line.startswith(name)]
    return line


def test_table_as_a_whole():
    assert tables.result_table(TITLE, RESULTS).split("\n") == [
        "objective  iwae, k = 5, reparam estimator",
        "data       mnist_small, dynamic binarization",
        "",
        "training bound  train  L_5       -95.31          nats per image",
        "log-likelihood  test   L_5000    -97.83 +- 0.51  nats per image",
        "KL              test   KL         22.10 +- 0.10  nats per image",
        "active units    test              31             units",
        "wall time                        212.3           s",
        "training speed                 3,121             steps/s",
        "",
        "+-: one standard error over 2,000 images",
        "L_5000: lower bound in expectation",
    ]


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-97.8312, 0.5123, "-97.83 +- 0.51"),
        (22.1012, 0.0996, "22.10 +- 0.10"),
        (1234.5678, 12.3, "1,235 +- 12"),
        (1234.5678, 123.4, "1,235 +- 123"),
        (0.001234, 0.0000567, "0.001234 +- 0.000057"),
        (1.5e12, 2e11, "1.5e+12 +- 2.0e+11"),
        (2.0, 0.0, "2.000 +- 0"),
        (math.nan, 0.5, "nan +- 0.5000"),
        (3.0, math.inf, "3.000 +- inf"),
    ],
)
def test_digits_follow_the_standard_error(value, error, text):
    table = tables.result_table([], [TEST_LL._replace(value=value, standard_error=error)])
    assert f" {text} " in " ".join(table.split("\n")[0].split())


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (31, "units", "31 units"),
        (31.0, "codes", "31 codes"),
        (30.5, "units", "30.50 units"),
        (2000.0, "draws", "2,000 draws"),
        (212.345, "s", "212.3 s"),
        (3121.4, "steps/s", "3,121 steps/s"),
        (0.0123456, "s", "0.01235 s"),
        (1e-9, "s", "1e-09 s"),
        (-95.0, "nats per image", "-95.00 nats per image"),
        (math.nan, "nats per image", "nan nats per image"),
        (-math.inf, "nats per image", "-inf nats per image"),
        (0.0, "units", "0 units"),
    ],
)
def test_digits_without_a_standard_error(value, unit, text):
    table = tables.result_table([], [Result("x", "", value, unit=unit)])
    assert " ".join(table.split()) == f"x {text}"


def test_a_number_stands_alone_without_an_error():
    assert tables.with_error(-128.04, 2.51) == "-128.0 +- 2.5"
    assert tables.with_error(-128.04, None) == "-128.0"


@pytest.mark.parametrize(
    ("mean", "low", "high", "text"),
    [
        (1.7412, 1.6012, 1.8812, "+1.74 (1.60, 1.88)"),
        (-12.04, -14.0, -10.08, "-12.0 (-14.0, -10.1)"),
        (0.0, 0.0, 0.0, "+0.00 (0.00, 0.00)"),
    ],
)
def test_differences_have_a_sign_and_the_digits_of_their_interval(mean, low, high, text):
    assert tables.interval({"mean": mean, "low": low, "high": high, "kind": "x"}) == text


def test_decimal_points_stand_below_each_other():
    table = tables.result_table(TITLE, RESULTS)
    names = ["training bound", "log-likelihood", "KL", "wall time"]
    assert len({line_of(table, name).index(".") for name in names}) == 1


def test_table_fits_a_terminal_and_wraps_long_titles():
    title = [*TITLE, ("model", "a network of " + ", ".join(["200 tanh units"] * 10))]
    long = RESULTS[1]._replace(name="effective sample size", symbol="log p(x|z)")
    table = tables.result_table(title, [*RESULTS, long._replace(over="replicates", count=16)])
    assert max(len(line) for line in table.split("\n")) <= 80
    assert not any(line.endswith(" ") for line in table.split("\n"))


def test_two_kinds_of_standard_errors_have_different_marks():
    others = [RESULTS[2]._replace(over="replicates", count=4)]
    table = tables.result_table([], [*RESULTS[:2], *others])
    assert "+- 0.51 a" in line_of(table, "log-likelihood")
    assert "+- 0.10 b" in line_of(table, "KL")
    assert "+- ... a: one standard error over 2,000 images" in table
    assert "+- ... b: one standard error over 4 replicates" in table


def test_replicates_are_averaged():
    values = [-97.0, -98.0, -99.5]
    averaged = tables.replicate_results([[TEST_LL._replace(value=v)] for v in values])
    assert averaged == [
        TEST_LL._replace(
            value=pytest.approx(-98.16666666666667),
            # sqrt(((7/6)^2 + (1/6)^2 + (4/3)^2) / 2) / sqrt(3)
            standard_error=pytest.approx(math.sqrt((49 + 1 + 64) / 36 / 2 / 3)),
            over="replicates",
            count=3,
        )
    ]


def test_one_replicate_keeps_its_own_standard_error():
    assert tables.replicate_results([RESULTS]) == RESULTS


def test_replicates_must_report_the_same_quantities():
    with pytest.raises(ValueError, match="replicate 1"):
        tables.replicate_results([RESULTS, RESULTS[:-1]])
    with pytest.raises(ValueError, match="at least one"):
        tables.replicate_results([])


def test_a_summary_is_valid_json_whatever_it_holds(tmp_path):
    import jax.numpy as jnp

    summary = {
        "z": math.nan,
        "infinite": [math.inf, -math.inf, 1.5],
        "array": np.array([[1.0, np.nan], [np.inf, 2.0]], np.float32),
        "scalar": np.float32(0.5),
        "integer": np.int64(3),
        "flag": np.bool_(True),
        "jax": jnp.array([1, 2], jnp.uint8),
        "half": jnp.array([0.5, jnp.nan], jnp.bfloat16),
        "path": pathlib.Path("a") / "b",
        "latent_dims": (100, 50),
        "result": TEST_LL,
        "nothing": None,
        3: "três",
    }
    files.write_summary(tmp_path / "summary.json", summary)

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    text = (tmp_path / "summary.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse) == {
        "z": None,
        "infinite": [None, None, 1.5],
        "array": [[1.0, None], [None, 2.0]],
        "scalar": 0.5,
        "integer": 3,
        "flag": True,
        "jax": [1, 2],
        "half": [0.5, None],
        "path": "a/b",
        "latent_dims": [100, 50],
        "result": TEST_LL._asdict(),
        "nothing": None,
        "3": "três",
    }
    assert files.read_json(tmp_path / "summary.json") == json.loads(text)


def test_a_summary_does_not_depend_on_the_order_of_insertion(tmp_path):
    files.write_summary(tmp_path / "a", {"x": 1, "y": {"u": 1, "v": 2}})
    files.write_summary(tmp_path / "b", {"y": {"v": 2, "u": 1}, "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes().endswith(b"}\n")


def test_a_summary_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "summary.json"
    files.write_summary(path, {"a": 1})
    with pytest.raises(TypeError, match="object"):
        files.write_summary(path, {"a": object()})
    assert files.read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["summary.json"]


def test_a_full_disk_leaves_the_old_summary_and_no_leftovers(tmp_path, file_size_limit):
    path = tmp_path / "summary.json"
    files.write_summary(path, {"a": 1})
    with file_size_limit(100), pytest.raises(UserError) as caught:
        files.write_summary(path, {"a": "x" * 10_000})
    assert str(caught.value) == f"cannot write {path}: File too large"
    assert files.read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["summary.json"]


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe", b"[" * 100_000])
def test_broken_json_is_one_sentence(tmp_path, content):
    (tmp_path / "summary.json").write_bytes(content)
    with pytest.raises(UserError, match="summary.json is not valid JSON") as caught:
        files.read_json(tmp_path / "summary.json")
    assert "\n" not in str(caught.value)


def test_missing_json_is_one_sentence(tmp_path):
    with pytest.raises(UserError) as caught:
        files.read_json(tmp_path / "config.json")
    assert str(caught.value) == f"cannot read {tmp_path}/config.json: No such file or directory"


def test_writing_below_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        files.write_summary(tmp_path / "file" / "summary.json", {})
    assert str(caught.value) == f"cannot write {tmp_path}/file/summary.json: Not a directory"


def test_nothing_heavy_is_imported():
    code = (
        "import sys; import elbo_lab.files, elbo_lab.reports.tables, elbo_lab.reports.figures; "
        "print([m for m in ('jax', 'matplotlib', 'tensorboard', 'tensorboardX', 'google.protobuf')"
        " if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr
