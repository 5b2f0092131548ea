"""Runs that do not fit into memory are refused from shapes alone: bytes in closed form, flags."""

import itertools
from types import SimpleNamespace

import jax
import pytest

from elbo_lab import configs
from elbo_lab.cli import validation
from elbo_lab.configs import Config
from elbo_lab.data import Spec
from elbo_lab.errors import UserError
from elbo_lab.runs import sizes

PIXELS, IMAGES = 784, 1000
SPEC = Spec("image", (28, 28), 2)


def parameters(config: Config) -> int:
    """Weights and biases of a one-layer model, by hand."""

    def chain(*widths: int) -> int:
        return sum(a * b + b for a, b in itertools.pairwise(widths))

    (latents,), hidden = config.model_options.latent_dims, config.model_options.hidden_dims
    encoder = chain(PIXELS, *hidden) + 2 * (hidden[-1] * latents + latents)
    return encoder + chain(latents, *hidden, PIXELS)


def refusal(config: Config, memory: int | None = None) -> str:
    with pytest.raises(UserError) as caught:
        sizes.check(configs.resolved(config), SPEC, IMAGES, memory)
    message = str(caught.value)
    assert "\n" not in message and message.startswith("--") and message.endswith(".")
    return message


@pytest.mark.parametrize(
    ("options", "flag", "copies"),
    [
        ({}, "hidden_dims=200,200", 4),
        ({"hidden_dims": (7,), "latent_dims": (300,)}, "latent_dims=300", 4),
        ({"hidden_dims": (9, 800, 3), "adam_nu_start": 1.0}, "hidden_dims=9,800,3", 4),
        ({"ema": 0.9}, "hidden_dims=200,200", 5),
        ({"optimizer": "adamax"}, "hidden_dims=200,200", 4),
    ],
    ids=str,
)
def test_parameters_gradient_moments_and_average_are_counted_to_the_byte(options, flag, copies):
    config = configs.make(k=1, eval_k=1, batch_size=1, **options)
    number = parameters(config)
    needed = copies * 4 * number + 4  # Adam counts its steps in an int32
    sizes.check(config, SPEC, IMAGES, needed)
    message = refusal(config, needed - 1)
    assert message.startswith(f"--{flag} is too large: the parameters of a model, {number:,}, take")
    several = configs.make(k=1, eval_k=1, batch_size=1, replicates=3, **options)
    sizes.check(several, SPEC, IMAGES, 3 * needed)
    assert refusal(several, 3 * needed - 1).startswith("--replicates=3 is too large")


@pytest.mark.parametrize(
    ("options", "blamed", "draws"),
    [
        ({"k": 5000, "eval_k": 5000}, "k=5000", 5000),
        ({"objective": "miwae", "m": 900}, "m=900", 4500),
        ({"k": 50, "batch_size": 1000}, "batch_size=1000", 50),
        ({"objective": "renyi", "alpha": "linear:0:1:9", "k": 3000}, "k=3000", 3000),
        ({"objective": "wake_sleep", "k": 5000, "eval_k": 5000}, "k=5000", 5000),
    ],
    ids=str,
)
def test_the_logits_of_all_draws_are_an_array_of_a_step(options, blamed, draws):
    config = configs.make(**options)
    needed = 4 * draws * config.batch_size * PIXELS
    sizes.check(configs.resolved(config), SPEC, IMAGES, needed)
    message = refusal(config, needed - 1)
    assert message.startswith(f"--{blamed} is too large: an array of one step, of {draws:,} draws")
    assert f"takes {needed / 1e9:,.1f} GB" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"latent_dims": (10**8,)}, ["--latent_dims=100000000 ", "60,200,395,184"]),
        ({"hidden_dims": (10**9,)}, ["--hidden_dims=1000000000 ", "1,720,000,000,884"]),
        (
            {"latent_dims": (9, 5), "upper_hidden_dims": (10**9,)},
            ["--upper_hidden_dims=1000000000"],
        ),
        ({"k": 10**9, "eval_k": 10**9}, ["--k=1000000000 ", "62,720.0 GB"]),
        ({"replicates": 10_000, "hidden_dims": (2000, 2000)}, ["--replicates=10000 "]),
        (
            {"objective": "jackknife", "k": 60, "eval_k": 60, "order": 30},
            ["--order=30 with --k=60 takes too many subsets"],
        ),
    ],
    ids=str,
)
def test_runs_that_fit_no_machine_are_refused_at_once(options, words):
    message = refusal(configs.make(**options), 10**11)
    assert all(word in message for word in words)


def test_numbers_of_replicates_and_layers_are_bounded():
    for options, start in (
        ({"replicates": 10**8}, "--replicates must be at most 10,000"),
        ({"hidden_dims": (1,) * 101}, "--hidden_dims must have at most 100 sizes"),
        ({"latent_dims": (1,) * 101}, "--latent_dims must have at most 100 sizes"),
    ):
        with pytest.raises(UserError) as caught:
            validation.check(configs.make(**options))
        assert str(caught.value).startswith(start)


def test_the_memory_is_the_devices_or_the_hosts(monkeypatch):
    host = sizes.total_memory()
    assert 10**8 < host < 10**15
    gpu = SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 7})
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu, gpu])
    assert sizes.total_memory() == 14
    cpu = SimpleNamespace(platform="cpu", memory_stats=lambda: None)
    monkeypatch.setattr(jax, "local_devices", lambda: [cpu, cpu])
    assert sizes.total_memory() == host


def test_the_draws_of_the_evaluation_are_bounded():
    with pytest.raises(UserError, match="--eval_k must be at most 10,000,000; got 1,000,000,000"):
        sizes.check(configs.make(eval_k=10**9), SPEC, IMAGES)
    sizes.check(configs.make(eval_k=10**7), SPEC, IMAGES)


@pytest.mark.slow
def test_draws_of_an_autoregressive_decoder_are_counted():
    """Its largest result of a product: the features of z, 16 for each pixel of each draw."""
    config = configs.resolved(configs.make(model="pixelvae", k=4000, eval_k=4000))
    rows = 4000 * config.batch_size
    message = refusal(config, 32 * rows * PIXELS)
    assert message.startswith("--k=4000 is too large: an array of one step, of 4,000 draws")
