"""Shared by all scripts: --help, and a quiet exit at Ctrl-C."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from elbo_lab import configs, losses
from elbo_lab.cli import help_page, run_flags
from elbo_lab.cli.flag_values import number_or_course
from elbo_lab.cli.run_sections import DISTRIBUTED, RUN_SECTION
from elbo_lab.config_sections import SECTIONS
from elbo_lab.models import MODELS
from elbo_lab.optimizer_options import OPTIMIZER_OPTIONS
from elbo_lab.options import options_of

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = set(configs.SHARED)
LISTS = [
    f"{kinds} (--{flag}=NAME --help shows the settings of one)"
    for kinds, flag in (
        ("Model families", "model"),
        ("Objectives", "objective"),
        ("Optimizers", "optimizer"),
    )
]
FLAGS = {
    "run": CONFIG | set(RUN_SECTION),
    "sweep": CONFIG | set(RUN_SECTION) - set(DISTRIBUTED) | {"baseline", "jobs"},
    "study": CONFIG | set(RUN_SECTION) - set(DISTRIBUTED) | {"list", "jobs", "results_dir"},
    "benchmark": {"parts", "cells", "peers", "rounds", "burst", "json"},
    "gradients": {
        *("objective", "estimators", "k", "m", "run", "toy", "num_gradients", "oracle_gradients"),
        *("batch_size", "seed", "output", "platform", "compilation_cache_dir"),
        *("data_dir", "manual_dir"),
    },
    "tools.make_mnist_small": {"idx_dir", "output"},
    "tools.make_explicit_rows": {"runs", "results_dir", "list"},
}
INTERRUPTED = """\
import os, signal
from elbo_lab.cli import run_flags
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored in the parent
run_flags.run(lambda: os.kill(os.getpid(), signal.SIGINT), "")
"""


def python(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("script", FLAGS)
def test_help_lists_the_flags_of_the_script(script):
    module = script if "." in script else f"experiments.{script}"
    done = python("-m", module, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m {module}" in done.stdout
    lists = LISTS if script in ("run", "sweep", "study") else []
    titles = [*SECTIONS, *lists, "The run"] if lists else []
    titles += ["Flags"] if script != "run" else []
    shown = done.stdout[done.stdout.index(f"\n{titles[0]}:\n") :]
    assert set(re.findall(r"^  --(\w+)", shown, re.MULTILINE)) == FLAGS[script]
    assert re.findall(r"^(\S.*):$", shown, re.MULTILINE) == titles
    for name in [*MODELS, *losses.OBJECTIVES, *OPTIMIZER_OPTIONS] if lists else []:
        assert re.search(rf"^  {name}  ", shown, re.MULTILINE)


def test_help_of_what_is_named_shows_its_settings_with_their_defaults():
    named = ("--model=mlp", "--help", "--objective", "ciwae", "--optimizer=soap")
    shown = python("-m", "experiments.run", *named).stdout
    sections = dict(re.findall(r"^(\S.*):\n((?:  .*\n)+)", shown, re.MULTILINE))
    family = re.findall(r"^  --(\w+)", sections["Settings of --model=mlp"], re.MULTILINE)
    assert family == list(options_of(MODELS["mlp"].options))
    words = " ".join(sections["Settings of --objective=ciwae"].split())
    assert words.startswith("--beta=0.5 weight of") and "linear:START:END:STEPS" in words
    words = " ".join(sections["Settings of --optimizer=soap"].split())
    assert words.startswith("--adam_b1=0.95 beta_1") and "--soap_frequency=10 steps" in words
    assert not set(LISTS) & set(sections)


def defaults_shown(monkeypatch, *arguments: str) -> dict[str, str]:
    """Flag -> the default that the help of these arguments shows, "" for none."""
    monkeypatch.setattr(sys, "argv", ["run", "--help", *arguments])
    values = flags.FlagValues()
    run_flags.define(values)
    monkeypatch.setattr(flags, "FLAGS", values)
    text = help_page.text("", run_flags.__name__, ({}, {}), {})
    return dict(re.findall(r"^  --(\w+)(?:=(.*))?$", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ((), {"model": "mlp", "objective": "iwae", "k": "5", "eval_k": "5000"}),
        (("--model=pixelvae",), {"objective": "elbo", "k": "1", "eval_k": "100"}),
        (("--model=pixelcnn",), {"model": "pixelcnn", "objective": "", "k": ""}),
        (("--objective=autoencoder",), {"objective": "autoencoder", "k": "", "model": "mlp"}),
        # The families differ in them.
        (("--model=mlp,pixelvae",), {"objective": "", "k": "", "eval_k": ""}),
    ],
    ids=str,
)
def test_help_shows_the_defaults_of_the_family_that_is_named(monkeypatch, named, expected):
    shown = defaults_shown(monkeypatch, *named)
    assert {name: shown[name] for name in expected} == expected


def test_help_shows_the_default_and_the_text_of_a_flag():
    shown = python("-m", "experiments.benchmark", "--help").stdout
    assert "  --rounds=15\n      alternations of the library and the limit\n" in shown
    assert "  --json\n      also write all figures to this file; figures of the same" in shown


@pytest.mark.parametrize(
    ("text", "value"), [("4", 4.0), ("constant:4", 4.0), ("-inf", -float("inf")), (None, None)]
)
def test_numbers_of_hyper_parameters(text, value):
    assert number_or_course(text) == value
    assert number_or_course("linear:0:1:9") == "linear:0:1:9"


def test_an_interrupt_is_one_word():
    done = python("-c", INTERRUPTED)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")
