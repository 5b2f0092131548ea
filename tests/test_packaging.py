"""The wheel carries the library and its data, and nothing else; what is imported is declared."""

import ast
import functools
import importlib.metadata
import importlib.util
import pathlib
import re
import subprocess
import sys
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from elbo_lab.cli import startup

ROOT = pathlib.Path(__file__).parents[1]
TOOL = ROOT / "tools" / "make_minimum_requirements.py"
OWN = {"elbo_lab", "experiments", "benchmarks"}
# What a plain install is for.
PLAIN = [ROOT / "elbo_lab" / name for name in ("losses", "distributions", "models")]
EXTRAS = ["lab", "interop", "peers", "test", "dev"]
# Modules of distributions that need not be installed here.
DISTRIBUTIONS = {"torch": ["torch"], "pyro": ["pyro-ppl"], "pythae": ["pythae"]}
DISTRIBUTIONS = importlib.metadata.packages_distributions() | DISTRIBUTIONS

_spec = importlib.util.spec_from_file_location("make_minimum_requirements", TOOL)
make_minimum_requirements = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_minimum_requirements)


def normal(name: str) -> str:
    """A distribution's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def floors(*extras: str) -> dict[str, str]:
    """Distribution -> the least version that a plain install and these extras allow."""
    stated = make_minimum_requirements.floors(list(extras))
    return {normal(name): version for name, version in stated.items()}


def distributions(module: str) -> set[str]:
    return {normal(name) for name in DISTRIBUTIONS.get(module, [module])}


def imported(file: pathlib.Path, lazily: bool = True) -> set[str]:
    """The dotted modules that a file imports, with "package.name" for each imported name.

    Args:
      file: Python source.
      lazily: whether imports inside functions count.
    """
    tree = ast.parse(file.read_text())
    names = set()
    for node in ast.walk(tree) if lazily else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def third_party(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules} - OWN - sys.stdlib_module_names


def reached(files) -> set[pathlib.Path]:
    """Our files that importing these ones imports: at once, not inside of functions."""
    done, todo = set(), set(files)
    while todo:
        done |= todo
        names = {name for file in todo for name in imported(file, lazily=False)}
        # Importing a.b.c imports a and a.b first.
        names = {".".join(name.split(".")[: i + 1]) for name in names for i in range(9)}
        paths = [ROOT / name.replace(".", "/") for name in names if name.startswith("elbo_lab")]
        todo = {p.with_suffix(".py") for p in paths} | {p / "__init__.py" for p in paths}
        todo = {path for path in todo if path.exists()} - done
    return done


@functools.cache
def brought_along() -> set[str]:
    """What a plain install installs: install_requires, what those require, and so on."""
    found, todo = set(), set(floors())
    while todo:
        name = todo.pop()
        found.add(name)
        requirements = map(Requirement, importlib.metadata.requires(name) or [])
        todo |= {normal(r.name) for r in requirements if not r.marker or r.marker.evaluate()}
        todo -= found
    return found


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
    required = map(Requirement, re.findall(r"^Requires-Dist: (.+)$", text, re.MULTILINE))
    plain, lab = set(), set()
    for requirement in required:
        if requirement.marker is None:
            plain.add(requirement.name)
        elif requirement.marker.evaluate({"extra": "lab"}):
            lab.add(requirement.name)
    assert plain == {"jax", "jaxlib", "chex", "flax", "optax", "numpyro"}
    assert lab == set(re.findall(r"^[\w-]+", (ROOT / "requirements.txt").read_text(), re.M))


def test_requirements_have_lower_bounds_only():
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9_-]+>=[0-9.]+", line), line


def test_a_plain_install_brings_what_losses_distributions_and_models_import():
    own = {file for folder in PLAIN for file in folder.rglob("*.py")}
    assert len(own) > 30
    named = {module for file in own for module in third_party(imported(file))}
    assert {"jax", "flax", "numpyro"} <= named
    # NumPy is what JAX's arrays are made of and from: JAX requires it.
    numpy_of_jax = {normal(Requirement(r).name) for r in importlib.metadata.requires("jax")}
    assert "numpy" in numpy_of_jax
    assert {m for m in named if not distributions(m) & {*floors(), "numpy"}} == set()
    # What else of ours they import may import more, if a plain install brings it along.
    others = reached(own) - own
    more = {module for file in others for module in third_party(imported(file, lazily=False))}
    assert {m for m in more if not distributions(m) & brought_along()} == set()


def test_all_else_that_is_imported_is_of_the_laboratory_or_of_the_peers():
    peers = set((ROOT / "benchmarks" / "peers").rglob("*.py"))
    runtime = {f for folder in OWN for f in (ROOT / folder).rglob("*.py")} - peers
    assert len(runtime) > 50
    for files, extras in ((runtime, ["lab"]), (peers, ["lab", "peers"])):
        named = {module for file in files for module in third_party(imported(file))}
        assert {m for m in named if not distributions(m) & set(floors(*extras))} == set()


def test_the_laboratory_contains_a_plain_install_and_the_tests_contain_the_laboratory():
    assert floors("lab").items() >= floors().items()
    assert set(floors("lab")) > set(floors())
    assert floors("test").items() > (floors("lab") | floors("interop")).items()
    assert floors("dev").items() > floors("test").items()


def test_scripts_say_what_to_install(tmp_path):
    """Without the packages of site-packages, and with empty folders in place of all but one."""

    def run(path: pathlib.Path) -> str:
        done = subprocess.run(
            [sys.executable, "-S", "-m", "experiments.run", "--epochs=1"],
            cwd=ROOT,
            env={"PYTHONPATH": str(path)},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
        assert 'pip install "elbo_lab[lab]"' in done.stderr
        return re.search(r"\((.*?)\)", done.stderr)[1]

    assert run(tmp_path).split(", ") == list(startup.LABORATORY)
    for name in set(startup.LABORATORY) - {"matplotlib"}:
        (tmp_path / name).mkdir()
    assert run(tmp_path) == "matplotlib"
    # They are all modules of the laboratory; absl-py's is absl.
    names = {name for module in startup.LABORATORY for name in distributions(module)}
    assert set(floors("lab")) <= names


def test_the_minimum_file_has_the_floors_of_the_requirements():
    done = subprocess.run(
        [sys.executable, TOOL, "dev", "peers"], capture_output=True, text=True, check=True
    )
    written = dict(line.split("==") for line in done.stdout.splitlines())
    text = (ROOT / "requirements.txt").read_text() + (ROOT / "setup.cfg").read_text()
    stated = set(re.findall(r"^\s*([\w.-]+)>=([\w.]+)$", text, re.MULTILINE))
    assert set(written.items()) == stated
    assert len(written) == len(stated)  # none overlooked, none with two floors
    refused = subprocess.run([sys.executable, TOOL, "gpu"], capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr == (
        "Error: An extra must be one of lab, interop, peers, test, dev; got 'gpu'.\n"
    )


def test_floors_lie_within_what_the_packages_installed_here_ask_for():
    """No package asks for an older one than our floor: then extras could not be together."""
    ours = {name: Version(version) for name, version in floors(*EXTRAS).items()}
    # Packages that need not be installed here: torch requires sympy, and sympy 1.13 and 1.14
    # "mpmath<1.4,>=1.1.0".
    asked = [("sympy", Requirement("mpmath<1.4,>=1.1.0"))]
    for distribution in importlib.metadata.distributions():
        requirements = map(Requirement, distribution.requires or [])
        asked += [
            (distribution.name, r) for r in requirements if not r.marker or r.marker.evaluate()
        ]
    seen = 0
    for name, requirement in asked:
        floor = ours.get(normal(requirement.name))
        for bound in requirement.specifier if floor else []:
            limit = Version(bound.version.removesuffix(".*"))
            seen += 1
            within = {"<": floor < limit, "<=": floor <= limit, "==": floor <= limit}
            assert within.get(bound.operator, True), f"{name} asks for {requirement}, not {floor}"
    assert seen > 20


def test_floors_are_no_newer_than_what_is_installed():
    for name, floor in floors("test").items():
        assert Version(importlib.metadata.version(name)) >= Version(floor), name
