"""Descriptions of the machine."""

import pytest

from elbo_lab.devices import setup

FIELDS = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: {model}\nmodel name\t: AMD EPYC\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FIELDS.format(model=17) + "flags\t\t: fpu avx avx2 avx512f\n", "model 17, AVX-512"),
        (FIELDS.format(model=1) + "flags\t\t: fpu avx avx2\n", "model 1, AVX2"),
        (FIELDS.format(model=1), "model 1"),
    ],
)
def test_processors_of_one_name_have_different_descriptions(tmp_path, text, expected):
    # A second processor does not count.
    (tmp_path / "cpuinfo").write_text(f"{text}\nprocessor\t: 1\nmodel name\t: another\n")
    assert setup.processor(str(tmp_path / "cpuinfo")) == f"AMD EPYC, family 25, {expected}"


def test_an_unknown_processor_has_no_name(tmp_path):
    assert setup.processor(str(tmp_path / "missing")) == ""
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nCPU part\t: 0xd0c\n")
    assert setup.processor(str(tmp_path / "cpuinfo")) == ""
