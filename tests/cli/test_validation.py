"""Every refusal is one sentence that names the flag, the value and what is valid."""

import math

import numpy as np
import pytest

from elbo_lab import configs, losses, schedules
from elbo_lab.cli import validation
from elbo_lab.configs import Config
from elbo_lab.data import Dataset
from elbo_lab.errors import UserError
from elbo_lab.options import options_of


def refusal(**options) -> str:
    with pytest.raises(UserError) as caught:
        validation.check(configs.replace(Config(), **options))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("--")
    assert message.endswith(".")
    return message


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"objective": "elbo", "kl": "mc"},
        {"objective": "elbo", "kl": "analytic"},
        {"objective": "beta_vae", "beta": 0.0},
        {"objective": "miwae", "m": 8, "k": 8},
        {"latent_dims": (100, 50)},
        {"latent_dims": (100, 50), "objective": "elbo"},
        {"latent_dims": (100, 50), "objective": "beta_vae", "kl": "mc"},
        {"clip_norm": 1.0, "log_every": 1, "checkpoint_every": 1, "adam_b1": 0.0},
        {"k": 50, "eval_k": 50},
        {"seed": 2**31 - 2},
    ],
    ids=str,
)
def test_what_is_valid_passes(options):
    validation.check(configs.replace(Config(), **options))


def test_choices_are_those_of_the_registries():
    assert validation.CHOICES["objective"] == (*losses.OBJECTIVES, "autoencoder", "gan")
    assert validation.CHOICES["estimator"] == tuple(losses.ESTIMATORS)
    assert validation.CHOICES["lr_schedule"] == tuple(schedules.LR_SCHEDULES)
    fields = vars(Config)
    for name, choices in validation.CHOICES.items():
        assert fields[name] is None or fields[name] in choices


def with_setting(name: str) -> dict[str, str]:
    """The flag of the first choice that has a setting; {} for a shared field."""
    field, choices = configs.owners(name)
    return {field: choices[0]} if field else {}


CHOICES = validation.CHOICES | {
    name: about.choices
    for settings in configs.option_classes()
    for name, about in options_of(settings).items()
    if about.choices
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_value_outside_of_the_choices(name):
    message = refusal(**with_setting(name) | {name: "foo"})
    assert message.startswith(f"--{name} must be one of ")
    assert message.endswith("got 'foo'.")
    assert all(choice in message for choice in CHOICES[name])


@pytest.mark.parametrize(
    "name",
    ["k", "m", "batch_size", "epochs", "replicates", "eval_k", "log_every", "checkpoint_every"],
)
@pytest.mark.parametrize("value", [0, -3])
def test_counts_are_at_least_1(name, value):
    assert refusal(**{name: value}) == f"--{name} must be at least 1; got {value}."


@pytest.mark.parametrize("name", ["k", "epochs", "eval_k"])
def test_counts_fit_into_32_bits(name):
    assert refusal(**{name: 2**31}) == f"--{name} must be at most {2**31 - 1}; got {2**31}."


@pytest.mark.parametrize("name", ["latent_dims", "hidden_dims", "upper_hidden_dims"])
@pytest.mark.parametrize(("sizes", "shown"), [((), "''"), ((0,), "'0'"), ((5, -1), "'5,-1'")])
def test_sizes_are_at_least_1(name, sizes, shown):
    message = refusal(**{name: sizes})
    assert message.startswith(f"--{name} must be whole numbers of at least 1")
    assert message.endswith(f"got {shown}.")


@pytest.mark.parametrize("name", ["learning_rate", "clip_norm"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan, 1e39, 1e-60, 1e-320, 1e-40])
def test_numbers_above_0_that_float32_can_hold(name, value):
    message = refusal(**{name: value})
    assert message.startswith(f"--{name} must be a number above 0 that float32 holds")
    assert message.endswith(f"got {value}.")


TRACED = {
    name: objective
    for objective in reversed(losses.OBJECTIVES)
    for name in configs.traced(Config(objective=objective))
}


@pytest.mark.parametrize(
    ("name", "objective"),
    [item for item in TRACED.items() if item[0] != "power"],  # at least 1
)
def test_hyper_parameters_in_float32(name, objective):
    for value in (1e-60, "linear:1e-60:1:5", "cosine:1:1e-40:5"):
        message = refusal(objective=objective, **{name: value})
        assert message.startswith(f"--{name} must be a number")
        assert message.endswith(f"(float32 takes less than 1.2e-38 for 0); got {value}.")
    for steps in ("1e400", "1e39", "nan"):
        message = refusal(objective=objective, **{name: f"linear:1:1:{steps}"})
        assert message.startswith(f"--{name} must be ")
    for value in (2.0**-126, f"linear:{2.0**-126}:1:{2.0**127}"):
        validation.check(configs.make(objective=objective, **{name: value}))


def test_the_change_of_a_course_fits_into_float32():
    assert "END - START" in refusal(objective="renyi", alpha="linear:-3e38:3e38:5")


def test_points_of_a_partition_rise_in_float32_and_are_bounded():
    assert refusal(objective="tvo", partition=(0.0, 1e-60, 1.0)).endswith("got '0.0,1e-60,1.0'.")
    assert "rise from 0 to 1" in refusal(objective="tvo", partition=(0.0, 0.5, 0.5 + 1e-12, 1.0))
    most = validation.LARGEST_PARTITION
    validation.check(configs.make(objective="tvo", partition=most))
    for partition in (most + 1, 10**9, tuple(np.linspace(0, 1, most + 2).tolist())):
        message = refusal(objective="tvo", partition=partition)
        assert message.startswith(f"--partition must have at most {most:,} steps")


@pytest.mark.parametrize(
    ("seed", "replicates", "largest"),
    [(-1, 1, 2**31 - 2), (2**31 - 1, 1, 2**31 - 2), (2**31 - 4, 4, 2**31 - 5)],
)
def test_seeds_of_all_replicates_are_int32(seed, replicates, largest):
    message = refusal(seed=seed, replicates=replicates)
    assert message == f"--seed must lie in 0..{largest}; got {seed}."


def test_the_evaluation_needs_at_least_k_draws():
    message = refusal(k=50, eval_k=49)
    assert "--eval_k must be at least --k, 50" in message
    assert message.endswith("got 49.")


@pytest.mark.parametrize(
    ("options", "flag", "objectives"),
    [
        ({"objective": "iwae", "m": 2}, "--m=2", "miwae, piwae"),
        ({"objective": "elbo", "m": 2}, "--m=2", "miwae, piwae"),
        ({"objective": "iwae", "beta": 2.0}, "--beta=2.0", "beta_vae, ciwae, beta_tcvae"),
        ({"objective": "elbo", "beta": 1.0}, "--beta=1.0", "beta_vae, ciwae, beta_tcvae"),
        (
            {"objective": "iwae", "kl": "mc"},
            "--kl=mc",
            "elbo, beta_vae, free_bits, lambda_vae, "
            "free_bits_batch, dip_vae_i, dip_vae_ii, info_vae",
        ),
        ({"objective": "iwae", "order": 1}, "--order=1", "jackknife"),
        ({"objective": "iwae", "partition": (0.0, 1.0)}, "--partition=0.0,1.0", "tvo"),
        ({"objective": "iwae", "alpha": "linear:1:0:9"}, "--alpha=linear:1:0:9", "renyi"),
    ],
)
def test_options_of_other_objectives(options, flag, objectives):
    message = refusal(**options)
    assert message.startswith(f"{flag} does not go with --objective={options['objective']}")
    assert message.endswith(f"objectives that have it: {objectives}.")


@pytest.mark.parametrize("beta", [-1.0, math.inf, math.nan, 1e39])
def test_beta_is_a_weight(beta):
    message = refusal(objective="beta_vae", beta=beta)
    assert message.startswith("--beta must be a number of at least 0")
    assert message.endswith(f"got {beta}.")


@pytest.mark.parametrize("objective", ["elbo", "beta_vae"])
def test_two_layers_have_no_closed_form_kl(objective):
    message = refusal(objective=objective, latent_dims=(4, 2), kl="analytic")
    assert "--kl=analytic needs one stochastic layer" in message
    assert message.endswith("use --kl=mc.")


# With the data


def dataset(train: np.ndarray, test: np.ndarray) -> Dataset:
    return Dataset("faces", train, test, None, None, (2, 2))


BINARY = np.array([[0, 255, 255, 0]] * 12, np.uint8)
GREY = np.array([[0, 255, 128, 0]] * 12, np.uint8)


# The laws of grey levels, stored as 8 bits or as floats.
LAWS = {
    np.uint8: "gaussian, gaussian_fixed, gaussian_predicted, discretized_logistic, "
    "logistic_mixture, categorical or continuous_bernoulli",
    np.float32: "gaussian, gaussian_fixed, gaussian_predicted or continuous_bernoulli",
}


def data_refusal(data: Dataset, **options) -> str:
    with pytest.raises(UserError) as caught:
        validation.check_data(configs.replace(Config(batch_size=4), **options), data)
    return str(caught.value)


def test_steps_can_be_counted():
    # An epoch has three steps.
    largest = (2**31 - 1) // 3
    validation.check_data(Config(batch_size=4, epochs=largest), dataset(BINARY, BINARY))
    message = data_refusal(dataset(BINARY, BINARY), epochs=largest + 1)
    assert message.startswith(
        f"--epochs must be at most {largest:,} with batches of 4 of 12 images"
    )


def test_a_batch_of_more_images_than_there_are():
    message = data_refusal(dataset(BINARY, BINARY), batch_size=13)
    assert message.startswith("--batch_size must be at most the number of training images, 12 in")
    assert message.endswith("faces; got 13.")
    validation.check_data(Config(batch_size=12), dataset(BINARY, BINARY))


@pytest.mark.parametrize(
    ("train", "test", "split"), [(GREY, BINARY, "training"), (BINARY, GREY, "test")]
)
def test_grey_images_need_a_binarization(train, test, split):
    for kind in (np.uint8, np.float32):
        scale = 1 if kind == np.uint8 else 255
        data = dataset((train / scale).astype(kind), (test / scale).astype(kind))
        message = data_refusal(data, binarization="none")
        assert message.startswith("--binarization=none needs binary images")
        assert f"the {split} images of faces have grey levels" in message
        assert message.endswith(f"use dynamic, fixed or threshold, or --likelihood={LAWS[kind]}.")
        for mode in ("dynamic", "fixed", "threshold"):
            validation.check_data(Config(batch_size=4, binarization=mode), data)


def test_binary_images_need_none():
    validation.check_data(Config(batch_size=4, binarization="none"), dataset(BINARY, BINARY))


def test_the_message_names_held_out_if_it_leaves_too_few_images():
    data = dataset(BINARY, BINARY)
    message = data_refusal(data, held_out=9)
    assert message == (
        "--held_out=9 leaves 3 of the 12 training images of faces, which must be at least "
        "--batch_size, 4."
    )
    assert "--held_out=5 leaves 7" in data_refusal(data, held_out=5, au_images=8)
    assert data_refusal(data, held_out=5, au_images=13).startswith("--au_images must be at most")


def test_options_without_effect_are_refused():
    assert "--m of at least 2" in refusal(objective="miwae")
    assert "--upper_hidden_dims needs two" in refusal(upper_hidden_dims=(60, 60))
    validation.check(configs.make(latent_dims=(20, 10), upper_hidden_dims=(60, 60)))


def test_the_objectives_own_defaults_are_recorded():
    vae = configs.to_dict(configs.resolved(Config(objective="beta_vae")))
    assert (vae["beta"], vae["kl"], vae["estimator"]) == (4.0, "analytic", "reparam")
    given = configs.make(objective="beta_vae", beta=2.0, kl="mc", estimator="dreg")
    assert configs.resolved(given) == given
    assert configs.resolved(Config()) == Config(estimator="reparam")
    assert configs.resolved(Config(objective="rws")) == configs.make(objective="rws", phase="wake")


# The algebra


@pytest.mark.parametrize("objective", losses.OBJECTIVES)
def test_every_pair_of_the_catalogue_passes_and_every_other_is_refused(objective):
    supported = losses.CATALOGUE[objective].estimators
    options = {"objective": objective, "m": 2 if objective in ("miwae", "piwae") else 1}
    has_kl = objective in configs.owners("kl")[1]
    if has_kl and objective not in losses.catalogue.KL_BY_DRAWS:
        options["kl"] = "mc"
    discrete = losses.estimators.DISCRETE_ESTIMATORS  # not for mlp's posterior
    supported = [name for name in supported if name not in discrete]
    for estimator in losses.ESTIMATORS:
        if estimator in discrete:
            continue
        if estimator in supported:
            validation.check(configs.make(**options, estimator=estimator))
            continue
        message = refusal(**options, estimator=estimator)
        assert message.startswith(
            f"--estimator={estimator} does not go with --objective={objective}"
        )
        end = f"{', '.join(supported)}." if supported else "a gradient of its own."
        assert message.endswith(end)


def test_a_closed_form_kl_leaves_few_estimators():
    message = refusal(objective="elbo", kl="analytic", estimator="dreg")
    assert "--objective=elbo --kl=analytic" in message
    assert message.endswith("valid estimators: reparam, score, score_loo, vimco.")


@pytest.mark.parametrize("alpha", [-math.inf, math.inf])
def test_the_bounds_of_infinite_order_have_no_dreg(alpha):
    message = refusal(objective="renyi", alpha=alpha, estimator="dreg")
    assert f"--objective=renyi --alpha={alpha}; valid estimators: " in message
    assert "dreg" not in message.split("valid estimators: ")[1].rstrip(".").split(", ")
    validation.check(configs.make(objective="renyi", alpha=alpha, estimator="stl"))


@pytest.mark.parametrize("estimator", ["vimco", "score_loo", "ovis"])
def test_estimators_that_compare_draws_need_two(estimator):
    message = refusal(k=1, estimator=estimator)
    assert message.startswith(f"--estimator={estimator} compares draws, and needs --k of at least")
    assert estimator not in message.split("For one draw:")[1]


# Discrete latents


@pytest.mark.parametrize(
    ("options", "start"),
    [
        (
            {"objective": "ciwae", "beta": 1.5},
            "--beta must be a number of at least 0 and at most 1",
        ),
        ({"objective": "cubo", "power": 0.5}, "--power must be a number of at least 1"),
        ({"objective": "renyi", "alpha": 1e39}, "--alpha must be a number that float32 can"),
        ({"objective": "renyi", "alpha": "linear:0:inf:9"}, "--alpha must be a course whose STEPS"),
        ({"objective": "renyi", "alpha": math.nan}, "--alpha must be a number that float32 can"),
        (
            {"objective": "lambda_vae", "regularization": 0.0},
            "--regularization must be a number ab",
        ),
        (
            {"objective": "beta_vae", "beta": "linear:0:1"},
            "--beta must be a number, or linear:START",
        ),
        (
            {"objective": "beta_vae", "beta": "linear:0:-1:5"},
            "--beta must be a number of at least 0",
        ),
        ({"objective": "jackknife", "order": -1}, "--order must be at least 0"),
        ({"objective": "jackknife", "order": 5}, "--order must be below the number of draws, 5"),
        (
            {"objective": "jackknife", "order": 4, "estimator": "score_loo"},
            "--order must be below the number of draws, 4",
        ),
        ({"objective": "tvo", "partition": 0}, "--partition must be a whole number of steps"),
        (
            {"objective": "tvo", "partition": (0.0, 0.5)},
            "--partition must be a whole number of steps",
        ),
        ({"objective": "free_bits", "group_size": 7}, "--group_size must divide the latent"),
        (
            {"objective": "free_bits", "latent_dims": (4, 2)},
            "--objective=free_bits needs one stoch",
        ),
        ({"objective": "dip_vae_i", "batch_size": 1}, "--objective=dip_vae_i compares the images"),
        ({"objective": "piwae"}, "--objective=piwae needs --m of at least 2"),
    ],
    ids=str,
)
def test_settings_out_of_range(options, start):
    assert refusal(**options).startswith(start)
