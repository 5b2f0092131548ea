"""README and docs: their code works, the names in them exist, and CI runs their commands."""

import pathlib
import pkgutil
import re
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import configs
from elbo_lab.cli import run_flags, run_sections, validation

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = ("elbo_lab", "experiments", "benchmarks", "tools", "tests", "docs", "results")
SOURCES = [path for folder in FOLDERS[:5] for path in sorted((ROOT / folder).rglob("*.py"))]

every_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}"
)


def code_blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[tuple[str, str]]:
    """(module, arguments) of every `python -m` command, including commands over several lines."""
    text = re.sub(r"\\\n\s+", "", text)
    matches = re.findall(r"\bpython -m ([\w.]+)((?: +[^\s`&#]+)*)", text)
    return [(module.rstrip("."), arguments) for module, arguments in matches]


@pytest.mark.slow
def test_the_bare_jax_example_trains():
    code, _ = code_blocks("python")
    namespace = {}
    exec(compile(code, "README.md", "exec"), namespace)
    assert len([line for line in code.splitlines() if line and "import" not in line]) <= 10
    keys = jax.random.split(jax.random.key(0), 5)
    params = {
        "w1": 0.05 * jax.random.normal(keys[0], (784, 32)),
        "w2": 0.05 * jax.random.normal(keys[1], (32, 16)),
        "w3": 0.05 * jax.random.normal(keys[2], (8, 784)),
    }
    x = (jax.random.uniform(keys[3], (16, 784)) < 0.2).astype(jnp.float32)
    step = jax.jit(jax.value_and_grad(namespace["loss_fn"], has_aux=True))
    losses = []
    for key in jax.random.split(keys[4], 100):
        (loss, aux), grads = step(params, key, x)
        assert aux.log_w.shape == (5, 16)
        params = jax.tree.map(lambda p, g: p - 0.02 * g, params, grads)
        losses.append(float(loss))
    # Pixels at one half cost 784 log 2 = 543 nats; at their frequency of 0.2 they cost 392.
    assert losses[0] > 540 and losses[-1] < 392


@pytest.mark.slow
def test_the_example_of_a_trained_run_gives_embeddings_samples_and_log_likelihoods(
    tmp_path, monkeypatch
):
    from elbo_lab import data
    from elbo_lab.runs import completing

    _, code = code_blocks("python")
    (name,) = re.findall(r'load\("(.*?)"\)', code)
    x = np.random.RandomState(0).randint(0, 2, (60, 28, 28)).astype(np.uint8)
    np.savez(tmp_path / "noise.npz", x_train=x[:40], x_test=x[40:])
    monkeypatch.chdir(tmp_path)
    config = configs.make(
        dataset="noise.npz", hidden_dims=(4,), epochs=1, eval_k=7, estimator="reparam"
    )
    completing.complete(config, name, data.load("noise.npz"), tensorboard=False)
    namespace = {"jax": jax, "x": x[40:]}
    exec(compile(code, "README.md", "exec"), namespace)
    assert namespace["embeddings"].shape == (20, 50)
    assert namespace["samples"].shape == (64, 28, 28)
    log_px = namespace["log_px"]
    # The pixels are 784 fair coins: no model exceeds their log-likelihood by much.
    assert log_px.shape == (20,) and np.all(log_px < -784 * np.log(2) + 30)


def test_the_printed_run_has_the_name_that_its_command_gives():
    from elbo_lab.runs import rundir

    config = configs.resolved(run_flags.config_of({}))
    assert f"kept in    {rundir.default_name(config)}\n" in README
    assert f'elbo_lab.load("{rundir.default_name(config)}")' in README


def test_ci_calls_the_test_command_as_printed():
    lines = [line for block in code_blocks("") for line in block.splitlines()]
    tests = [line for line in lines if line.endswith("-m pytest")]
    assert len(tests) == 1 and tests[0].startswith("python3 -m venv .venv && ")
    assert "grep -m 1 -- '-m pytest$' README.md" in (ROOT / ".ci" / "run").read_text()


def test_one_command_installs_the_laboratory_and_one_the_tests():
    installed = re.findall(r"^python3 -m venv .*pip install -q -e (\S+) &&", README, re.MULTILINE)
    assert installed == ['".[lab]"', '".[test]"']


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


@every_page
def test_every_flag_exists(page):
    defined = [re.findall(r'(?:DEFINE_\w+|define_\w+)\(\s*"(\w+)"', p.read_text()) for p in SOURCES]
    known = {"help", *run_flags.setting_names(), *sum(defined, [])}
    known |= {*run_sections.PROTOCOL_SECTION, *run_sections.RUN_SECTION}
    text = page.read_text().replace("ruff format --check", "")
    assert set(re.findall(r"(?<![\w-])--([a-z]\w+)", text)) <= known


@every_page
def test_every_module_of_a_command_exists(page):
    modules = [m for m, _ in commands(page.read_text()) if m not in ("pytest", "venv")]
    missing = [m for m in modules if not (ROOT / f"{m.replace('.', '/')}.py").exists()]
    assert missing == []


@every_page
def test_every_training_command_is_a_valid_configuration(page):
    for module, arguments in commands(page.read_text()):
        flags = [word[2:].partition("=") for word in shlex.split(arguments)]
        texts = {name: value if equals else "true" for name, equals, value in flags}
        if module == "experiments.run" and "help" not in texts:
            validation.check(run_flags.config_of(texts))


def test_every_row_of_a_table_of_commands_is_a_valid_configuration():
    rows = [line for page in PAGES for line in page.read_text().splitlines()]
    rows = [row for row in rows if re.match(r"\|[^|]*\| (`--|\(none\))", row)]
    assert len(rows) > 15
    for row in rows:
        flags = re.findall(r"--(\w+)=([^\s`]+)", row.split(" | ")[1])
        validation.check(run_flags.config_of(dict(flags)))


def test_every_path_in_pages_and_sources_exists():
    pattern = rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*"
    missing = [
        (str(path.relative_to(ROOT)), name)
        for path in (*PAGES, *SOURCES)
        for name in re.findall(pattern, path.read_text())
        if not (ROOT / name.rstrip(".")).exists()
    ]
    assert missing == []


def test_every_family_and_every_study_is_documented():
    from elbo_lab.models import MODELS
    from elbo_lab.studies.registry import STUDIES

    runs = (ROOT / "docs" / "runs.md").read_text()
    systems = (ROOT / "docs" / "systems" / "index.md").read_text()
    for name, study in STUDIES.items():
        assert f"| `{name}` | {study.question} |" in runs
    for name, family in MODELS.items():
        assert f"`{family.options.__name__}`" in systems or f"`--model={name}" in systems, name


@every_page
def test_every_dotted_name_exists(page):
    parts = "|".join(p.name for p in (ROOT / "elbo_lab").iterdir() if (p / "__init__.py").exists())
    text = page.read_text()
    named = re.findall(r"\belbo_lab((?:\.\w+)+)", text)
    named += [f".{n}" for n in re.findall(rf"`(?:help\()?((?:{parts})(?:\.\w+)+)", text)]
    for name in named:
        if not name.endswith((".py", ".md", ".npz", ".NAME")):
            pkgutil.resolve_name(f"elbo_lab{name}")


@every_page
def test_links_and_images_exist(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target
