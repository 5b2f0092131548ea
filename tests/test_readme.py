"""What the README prints works, and says what CI does."""

import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_bare_jax_example_trains():
    (code,) = code_blocks("python")
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


def test_ci_calls_the_test_command_as_printed():
    commands = [line for block in code_blocks("") for line in block.splitlines()]
    tests = [line for line in commands if line.endswith("-m pytest")]
    assert len(tests) == 1 and tests[0].startswith("python3 -m venv .venv && ")
    assert "grep -m 1 -- '-m pytest$' README.md" in (ROOT / ".ci" / "run").read_text()


def test_one_command_installs_the_laboratory_and_one_the_tests():
    installed = re.findall(r"^python3 -m venv .*pip install -q -e (\S+) &&", README, re.MULTILINE)
    assert installed == ['".[lab]"', '".[test]"']


def test_every_flag_in_the_readme_exists():
    from elbo_lab.cli.run_flags import PROTOCOL_SECTION, RUN_SECTION, setting_names

    known = {"help", *setting_names()}
    known |= {*PROTOCOL_SECTION, *RUN_SECTION, "baseline", "jobs", "models"}
    named = set(re.findall(r"--([a-z_]+)", "\n".join(code_blocks(""))))
    assert named <= known


def test_links_and_images_of_the_readme_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
