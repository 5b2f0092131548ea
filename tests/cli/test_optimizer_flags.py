"""Settings of optimizers, averaged weights and warm-up on the command line, and in old runs."""

import json
import math

import pytest

from elbo_lab import configs
from elbo_lab.cli import grid_flags, run_flags, validation
from elbo_lab.configs import Config
from elbo_lab.optimizer_options import OPTIMIZER_OPTIONS, MuonOptions
from elbo_lab.options import options_of
from elbo_lab.runs import reporting
from tests.cli.test_validation import refusal, with_setting

# The settings of all optimizers that are decays of averages.
DECAYS = {
    name: option
    for settings in OPTIMIZER_OPTIONS.values()
    for name, option in options_of(settings).items()
    if option.below is not None
}


@pytest.mark.parametrize("name", ["ema", *DECAYS])
@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_decays_of_averages(name, value):
    least = "above 0" if name == "schedule_free_b1" else "of at least 0"
    expected = f"--{name} must be a number {least} and below 1; got {value}."
    assert refusal(**with_setting(name), **{name: value}) == expected


@pytest.mark.parametrize("name", ["ema", *DECAYS])
def test_decays_of_averages_in_float32(name):
    for value, reason in ((1 - 1e-11, "rounds it to 1"), (1e-60, "takes less than 1.2e-38 for 0")):
        message = refusal(**with_setting(name), **{name: value})
        assert message.endswith(f"below 1 (float32 {reason}); got {value}.")
    validation.check(configs.replace(Config(), **with_setting(name), **{name: 1 - 2**-24}))


def test_all_decays_are_found():
    expected = "adam_b1 adam_b2 muon_beta soap_decay schedule_free_b1 momentum"
    assert set(DECAYS) == set(expected.split())


@pytest.mark.parametrize("optimizer", ["adam", "adamax", "muon", "soap", "schedule_free"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan, 1e39, 1e-60])
def test_epsilon_is_a_positive_number_of_float32(optimizer, value):
    message = refusal(optimizer=optimizer, adam_eps=value)
    assert message.startswith("--adam_eps must be a number above 0 and at most 3.4e+38")
    assert message.endswith(f"got {value}.")
    assert ("float32 takes less than 1.2e-38 for 0" in message) == (value == 1e-60)


@pytest.mark.parametrize("value", [1e-60, -1.0, math.inf, math.nan, 1e39])
def test_adams_initial_second_moment(value):
    message = refusal(adam_nu_start=value)
    assert message.startswith("--adam_nu_start must be a number of at least 0")
    assert message.endswith(f"got {value}.")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"warmup_steps": -1}, "--warmup_steps must be at least 0; got -1."),
        (
            {"optimizer": "schedule_free", "ema": 0.9},
            "--ema=0.9 does not go with --optimizer=schedule_free, which averages the weights by "
            "itself.",
        ),
        (
            {"optimizer": "schedule_free", "schedule_free_power": 20.0},
            "--schedule_free_power=20 is too large: to this power --learning_rate, 0.001, is 0 in "
            "float32, and no step would count in the average.",
        ),
        (
            {"optimizer": "schedule_free", "learning_rate": 10.0, "schedule_free_power": 40.0},
            "--schedule_free_power=40 is too large: to this power --learning_rate, 10, is infinite "
            "in float32, and no step would count in the average.",
        ),
        (
            {"optimizer": "sgd", "nesterov": True},
            "--nesterov=true needs --momentum above 0; got 0.",
        ),
        ({"optimizer": "soap", "soap_frequency": 0}, "--soap_frequency must be at least 1; got 0."),
        ({"optimizer": "soap", "soap_max_dim": -1}, "--soap_max_dim must be at least 0; got -1."),
        (
            {"optimizer": "soap", "soap_factor_every": 0},
            "--soap_factor_every must be at least 1; got 0.",
        ),
        ({"optimizer": "muon", "muon_steps": 0}, "--muon_steps must be at least 1; got 0."),
        (
            {"optimizer": "muon", "muon_rms": 0.0},
            "--muon_rms must be a number above 0 and at most 3.4e+38; got 0.0.",
        ),
        (
            {"soap_decay": 0.9},
            "--soap_decay is a setting of --optimizer=soap; got --optimizer=adam.",
        ),
        (
            {"optimizer": "sgd", "adam_b1": 0.5},
            "--adam_b1 is a setting of --optimizer=adam, adamax, muon, soap; got --optimizer=sgd.",
        ),
        (
            {"optimizer": "lion"},
            "--optimizer must be one of adam, adamax, muon, soap, schedule_free, sgd; got 'lion'.",
        ),
    ],
    ids=str,
)
def test_settings_of_optimizers_and_averages(options, sentence):
    assert refusal(**options) == sentence


def test_another_optimizer_than_the_protocols_has_its_own_defaults():
    config = run_flags.config_of({"protocol": "tucker2018", "optimizer": "muon"})
    assert config.optimizer_options == MuonOptions()
    assert (config.batch_size, config.learning_rate) == (32, 3e-4)
    config = run_flags.config_of({"protocol": "fast", "optimizer": "soap", "soap_max_dim": "9"})
    options = config.optimizer_options
    assert (options.soap_max_dim, options.soap_decay, config.batch_size) == (9, 0.8, 250)


def test_in_a_sweep_a_setting_applies_to_the_cells_of_its_optimizer():
    texts = {"adam_eps_hat": "true", "soap_decay": "0.9", "adam_b1": "0.5"}
    for optimizer, names in (
        ("adam", {"adam_eps_hat", "adam_b1"}),
        ("soap", {"soap_decay", "adam_b1"}),
        ("sgd", set()),
    ):
        all_texts = texts | {"optimizer": optimizer}
        assert {name for name in texts if grid_flags.applies(name, all_texts)} == names


def test_a_stored_configuration_without_the_fields_is_adams():
    stored = configs.to_dict(configs.make(adam_b1=0.99, adam_nu_start=1.0))
    old = {n: v for n, v in stored.items() if n not in ("optimizer", "ema", "warmup_steps")}
    config = configs.from_dict(json.loads(json.dumps(old)))
    assert config == configs.make(adam_b1=0.99, adam_nu_start=1.0)
    assert configs.differences(config, old) == []
    other = configs.replace(config, optimizer="soap")
    assert configs.differences(other, old)[0] == "optimizer: 'soap' here, 'adam' there"
    assert reporting.optimizer_text(old) == ""


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"adam_b1": 0.5, "lr_schedule": "constant"}, ""),
        ({"ema": 0.999}, "adam, learning rate 0.001, ema 0.999"),
        (
            {"optimizer": "soap", "learning_rate": 6e-3, "warmup_steps": 2000, "ema": 0.99},
            "soap, learning rate 0.006, warm-up 2,000 steps, ema 0.99",
        ),
    ],
    ids=str,
)
def test_a_table_names_what_is_not_plain_adam(settings, text):
    assert reporting.optimizer_text(configs.to_dict(configs.make(**settings))) == text
