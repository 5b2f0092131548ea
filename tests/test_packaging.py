"""The wheel contains the library and its data alone, and every import is a declared requirement."""

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
# Folders that work with a plain install, without extras.
PLAIN = [ROOT / "elbo_lab" / name for name in ("losses", "distributions", "models")]
EXTRAS = ["lab", "interop", "peers", "classification", "test", "dev"]
# Module -> the distributions that contain it. The peers need not be installed here.
PEERS = {"torch": ["torch"], "pyro": ["pyro-ppl"], "pythae": ["pythae"]}
DISTRIBUTIONS = importlib.metadata.packages_distributions() | PEERS

_spec = importlib.util.spec_from_file_location("make_minimum_requirements", TOOL)
make_minimum_requirements = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_minimum_requirements)


def normalized(name: str) -> str:
    """A distribution's name in the form in which pip compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def floors(*extras: str) -> dict[str, str]:
    """Distribution -> the lowest version that a plain install and these extras allow."""
    versions = make_minimum_requirements.floors(list(extras))
    return {normalized(name): version for name, version in versions.items()}


def distributions(module: str) -> set[str]:
    return {normalized(name) for name in DISTRIBUTIONS.get(module, [module])}


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
    """The files, and those of ours that importing them imports, other than inside functions."""
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
def plain_install() -> set[str]:
    """All distributions of a plain install: install_requires, their requirements, and so on."""
    done, todo = set(), set(floors())
    while todo:
        name = todo.pop()
        done.add(name)
        requirements = map(Requirement, importlib.metadata.requires(name) or [])
        todo |= {normalized(r.name) for r in requirements if not r.marker or r.marker.evaluate()}
        todo -= done
    return done


@pytest.mark.slow
def test_the_wheel_contains_elbo_lab_alone(tmp_path):
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
    assert "elbo_lab/data/tang_quatrains.txt.gz" in names
    assert "elbo_lab/data/NOTICE.tang_quatrains.md" in names
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


def test_a_plain_install_has_all_imports_of_losses_distributions_and_models():
    own = {file for folder in PLAIN for file in folder.rglob("*.py")}
    assert len(own) > 30
    modules = {module for file in own for module in third_party(imported(file))}
    assert {"jax", "flax", "numpyro"} <= modules
    # NumPy need not be declared, because JAX requires it.
    jax_requires = {normalized(Requirement(r).name) for r in importlib.metadata.requires("jax")}
    assert "numpy" in jax_requires
    assert {m for m in modules if not distributions(m) & {*floors(), "numpy"}} == set()
    # Other files of ours that they import may also import indirect requirements.
    indirect = reached(own) - own
    modules = {module for file in indirect for module in third_party(imported(file, lazily=False))}
    assert {m for m in modules if not distributions(m) & plain_install()} == set()


def test_the_laboratory_and_other_extras_have_all_other_imports():
    peers = set((ROOT / "benchmarks" / "peers").rglob("*.py"))
    evaluation = ROOT / "elbo_lab" / "evaluation"
    classifiers = {evaluation / f"{name}.py" for name in ("pixel_classifiers", "disentanglement")}
    runtime = {f for folder in OWN for f in (ROOT / folder).rglob("*.py")} - peers - classifiers
    assert len(runtime) > 50
    for files, extras in (
        (runtime, ["lab"]),
        (peers, ["lab", "peers"]),
        (classifiers, ["lab", "classification"]),
    ):
        modules = {module for file in files for module in third_party(imported(file))}
        assert {m for m in modules if not distributions(m) & set(floors(*extras))} == set()


def test_the_laboratory_contains_a_plain_install_and_the_tests_contain_the_laboratory():
    assert floors("lab").items() >= floors().items()
    assert set(floors("lab")) > set(floors())
    assert floors("test").items() > (floors("lab") | floors("interop")).items()
    assert floors("dev").items() > floors("test").items()


def test_scripts_say_what_to_install(tmp_path):
    """With no installed packages, and with empty folders in place of all packages but one."""

    def run(path: pathlib.Path) -> str:
        result = subprocess.run(
            [sys.executable, "-S", "-m", "experiments.run", "--epochs=1"],
            cwd=ROOT,
            env={"PYTHONPATH": str(path)},
            capture_output=True,
            text=True,
        )
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
        assert 'pip install "elbo_lab[lab]"' in result.stderr
        return re.search(r"\((.*?)\)", result.stderr)[1]

    assert run(tmp_path).split(", ") == list(startup.LABORATORY)
    for name in set(startup.LABORATORY) - {"matplotlib"}:
        (tmp_path / name).mkdir()
    assert run(tmp_path) == "matplotlib"
    # They are all modules of the laboratory.
    names = {name for module in startup.LABORATORY for name in distributions(module)}
    assert set(floors("lab")) <= names


def test_the_minimum_file_has_the_floors_of_the_requirements():
    result = subprocess.run(
        [sys.executable, TOOL, "dev", "peers"], capture_output=True, text=True, check=True
    )
    pinned = dict(line.split("==") for line in result.stdout.splitlines())
    text = (ROOT / "requirements.txt").read_text() + (ROOT / "setup.cfg").read_text()
    stated = set(re.findall(r"^\s*([\w.-]+)>=([\w.]+)$", text, re.MULTILINE))
    assert set(pinned.items()) == stated
    assert len(pinned) == len(stated)  # No requirement has two floors.
    refused = subprocess.run([sys.executable, TOOL, "gpu"], capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr == (
        "Error: An extra must be one of lab, interop, peers, classification, test, dev; got "
        "'gpu'.\n"
    )


def test_floors_satisfy_the_requirements_of_the_installed_packages():
    """If a package required an older version than our floor, extras could not be combined."""
    our_floors = {name: Version(version) for name, version in floors(*EXTRAS).items()}
    # Packages that need not be installed here: torch requires sympy, and sympy 1.13 and 1.14
    # "mpmath<1.4,>=1.1.0".
    requirements = [("sympy", Requirement("mpmath<1.4,>=1.1.0"))]
    for distribution in importlib.metadata.distributions():
        for requirement in map(Requirement, distribution.requires or []):
            if not requirement.marker or requirement.marker.evaluate():
                requirements.append((distribution.name, requirement))
    number_checked = 0
    for name, requirement in requirements:
        floor = our_floors.get(normalized(requirement.name))
        if floor is None:
            continue
        for bound in requirement.specifier:
            limit = Version(bound.version.removesuffix(".*"))
            is_met = {"<": floor < limit, "<=": floor <= limit, "==": floor <= limit}
            assert is_met.get(bound.operator, True), f"{name} requires {requirement}, not {floor}"
            number_checked += 1
    assert number_checked > 20


def test_floors_are_no_newer_than_what_is_installed():
    for name, floor in floors("test").items():
        assert Version(importlib.metadata.version(name)) >= Version(floor), name
