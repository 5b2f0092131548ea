"""The wheel carries the library and its data, and nothing else."""

import pathlib
import re
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_carries_elbo_lab_alone(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), "."]
    subprocess.run(command, cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (n for n in names if n.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"elbo_lab"}
    assert "elbo_lab/data/mnist_small.npz" in names
    assert "elbo_lab/data/NOTICE.mnist_small.md" in names
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "elbo_lab").rglob("*.py")}
    assert sources <= set(names)
    required = set(re.findall(r"^Requires-Dist: ([A-Za-z0-9_.-]+)[^;\n]*$", text, re.MULTILINE))
    listed = set(re.findall(r"^([A-Za-z0-9_-]+)", (ROOT / "requirements.txt").read_text(), re.M))
    assert required == listed


def test_requirements_have_lower_bounds_only():
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9_-]+>=[0-9.]+", line), line
