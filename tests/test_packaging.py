"""The wheel carries the library and its data, and nothing else; what is imported is declared."""

import ast
import importlib.metadata
import importlib.util
import pathlib
import re
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TOOL = ROOT / "tools" / "make_minimum_requirements.py"
OWN = {"elbo_lab", "experiments", "benchmarks"}
# Modules of distributions that need not be installed here.
DISTRIBUTIONS = {"torch": ["torch"], "pyro": ["pyro-ppl"], "pythae": ["pythae"]}
DISTRIBUTIONS = importlib.metadata.packages_distributions() | DISTRIBUTIONS

_spec = importlib.util.spec_from_file_location("make_minimum_requirements", TOOL)
make_minimum_requirements = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_minimum_requirements)


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


def required(*extras: str) -> set[str]:
    """Names of distributions, as pip compares them."""
    return {normal(name) for name in make_minimum_requirements.floors(list(extras))}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(files) -> dict[str, pathlib.Path]:
    """Top-level module -> a file that imports it, somewhere in it; neither ours nor Python's."""
    found = {}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            found |= {name.partition(".")[0]: file for name in names}
    return {n: f for n, f in found.items() if n not in sys.stdlib_module_names | OWN}


def undeclared(files, *extras: str) -> dict[str, pathlib.Path]:
    return {
        module: file
        for module, file in imported(files).items()
        if not {normal(name) for name in DISTRIBUTIONS.get(module, [module])} & required(*extras)
    }


def test_what_is_imported_is_declared():
    peers = set((ROOT / "benchmarks" / "peers").rglob("*.py"))
    runtime = {f for folder in OWN for f in (ROOT / folder).rglob("*.py")} - peers
    assert len(runtime) > 50
    assert undeclared(runtime) == {}
    assert undeclared(peers, "peers") == {}


def test_the_minimum_file_has_the_floors_of_the_requirements():
    done = subprocess.run(
        [sys.executable, TOOL, "dev", "peers"], capture_output=True, text=True, check=True
    )
    written = dict(line.split("==") for line in done.stdout.splitlines())
    text = (ROOT / "requirements.txt").read_text() + (ROOT / "setup.cfg").read_text()
    stated = re.findall(r"^\s*([\w.-]+)>=([\w.]+)$", text, re.MULTILINE)
    assert len(stated) == len(dict(stated)) == len(written)  # none twice, none overlooked
    assert written == dict(stated)
    refused = subprocess.run([sys.executable, TOOL, "gpu"], capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr == (
        "Error: 'gpu' is no extra of setup.cfg; choose from interop, peers, test, dev.\n"
    )


def test_extras_can_be_installed_together():
    """torch asks for sympy, and sympy 1.13 and 1.14 for mpmath>=1.1,<1.4."""
    major, minor = make_minimum_requirements.floors(["dev", "peers"])["mpmath"].split(".")[:2]
    assert (1, 1) <= (int(major), int(minor)) < (1, 4)
