"""Messages about invalid JSON files."""

import pytest

from elbo_lab import json_files
from elbo_lab.errors import UserError

ROW = {"value": float | None}
KIND = {"name": str, "steps": int, "rows": list[ROW], "by": dict[str, int]}
GOOD = {"name": "a", "steps": 3, "rows": [{"value": 1}, {"value": None}], "by": {"0": 1}}


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (GOOD, KIND, ""),
        (GOOD | {"more": 1}, KIND, ""),
        ([GOOD], KIND, "its content must be an object; got a list"),
        (GOOD | {"steps": True}, KIND, "steps must be a whole number; got True"),
        (GOOD | {"steps": 3.0}, KIND, "steps must be a whole number; got 3.0"),
        (GOOD | {"rows": [{}]}, KIND, "rows.0.value is missing"),
        (
            GOOD | {"rows": [{"value": 1}, {"value": "x"}]},
            KIND,
            "rows.1.value must be a number; got 'x'",
        ),
        (GOOD | {"by": {"7": None}}, KIND, "by.7 must be a whole number; got null"),
        (GOOD | {"by": []}, KIND, "by must be an object; got a list"),
        ({}, {"jobs?": int}, ""),
        ({"jobs": None}, {"jobs?": int}, "jobs must be a whole number; got null"),
        ([1, 2.5], tuple[float, ...], ""),
        ([1, "2"], list[float], "1 must be a number; got '2'"),
        (True, bool, ""),
        (1, bool, "its content must be true or false; got 1"),
    ],
)
def test_faults(value, kind, message):
    assert json_files.fault(value, kind) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"name": 1}', "file.json is damaged: name must be a string; got 1"),
        ("{", "file.json is not valid JSON"),
        ("[" * 60 + "]" * 60, "file.json is not valid JSON: it is nested more than 50 deep"),
        ("[" * 5000 + "]" * 5000, "file.json is not valid JSON: it is nested more than 50 deep"),
    ],
)
def test_an_invalid_file_raises_one_sentence(tmp_path, text, message):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(UserError) as error:
        json_files.read(tmp_path / "file.json", {"name": str})
    assert message in str(error.value) and "\n" not in str(error.value)
