"""Checks of configurations whose model has discrete latents."""

import pytest

from elbo_lab import configs
from elbo_lab.cli import grid_flags, validation
from tests.cli.test_validation import refusal


@pytest.mark.parametrize(
    ("options", "estimator"),
    [
        ({}, "vimco"),
        ({"objective": "elbo", "k": 1}, "score"),
        ({"objective": "elbo", "k": 2}, "vimco"),
        ({"objective": "elbo", "k": 1, "kl": "analytic"}, "score"),
        ({"objective": "free_bits"}, "vimco"),
        ({"objective": "miwae", "m": 2, "k": 1}, "vimco"),
        ({"objective": "rws"}, None),
        ({"estimator": "wake"}, "wake"),
        ({"objective": "elbo", "estimator": "enumerate"}, "enumerate"),
        ({"objective": "elbo", "k": 1, "score_baseline": "network"}, "score"),
    ],
    ids=str,
)
def test_the_default_estimator_of_discrete_latents_goes_with_objective_and_draws(
    options, estimator
):
    config = configs.make(model="sbn", latent_dims=(3,), **options)
    validation.check(config)
    assert configs.resolved(config).estimator == estimator


def test_a_baseline_applies_to_the_cells_of_its_estimator():
    for estimator, applies in (("score", True), ("vimco", False), ("", True)):
        texts = {"model": "sbn", "estimator": estimator, "score_baseline": "mean"}
        assert grid_flags.applies("score_baseline", texts) == applies


def test_a_model_without_an_objective_has_no_baseline():
    assert refusal(model="mixture", score_baseline="mean") == (
        "--score_baseline=mean does not go with --model=mixture, which is trained by a loss of its "
        "own."
    )


def test_the_sum_over_z_needs_discrete_latents():
    assert refusal(objective="elbo", estimator="enumerate") == (
        "--estimator=enumerate sums over all values of z, which are not finitely many in "
        "--model=mlp; valid estimators with --objective=elbo: reparam, stl, dreg, score, "
        "score_loo, vimco, wake, wake_dreg."
    )


def test_pairs_of_binary_draws_need_binary_latents():
    assert refusal(objective="elbo", estimator="disarm") == (
        "--estimator=disarm needs binary latents, which --model=mlp has not; valid estimators with "
        "--objective=elbo: reparam, stl, dreg, score, score_loo, vimco, wake, wake_dreg."
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"estimator": "dreg"},
            "--estimator=dreg differentiates through draws of z, which are discrete in "
            "--model=sbn; valid estimators with --objective=iwae: vimco, score_loo, score, "
            "disarm, arm, rebar, ovis, wake, gumbel_softmax, straight_through.",
        ),
        (
            {"objective": "beta_vae", "estimator": "reparam"},
            "--estimator=reparam differentiates through draws of z, which are discrete in "
            "--model=sbn; valid estimators with --objective=beta_vae --kl=analytic: vimco, "
            "score_loo, score, disarm, arm, rebar, gumbel_softmax, straight_through, enumerate.",
        ),
        (
            {"objective": "elbo", "estimator": "ovis"},
            "--estimator=ovis does not go with --objective=elbo; valid estimators: vimco, "
            "score_loo, score, disarm, arm, rebar, wake, gumbel_softmax, straight_through, "
            "enumerate.",
        ),
        (
            {"objective": "elbo", "estimator": "enumerate", "latent_dims": (17,)},
            "--estimator=enumerate needs one stochastic layer of at most 16 units, over whose "
            "values it sums; got --latent_dims=17.",
        ),
        (
            {"objective": "elbo", "estimator": "enumerate", "latent_dims": (3, 2)},
            "--estimator=enumerate needs one stochastic layer of at most 16 units, over whose "
            "values it sums; got --latent_dims=3,2.",
        ),
        (
            {"estimator": "enumerate"},
            "--estimator=enumerate does not go with --objective=iwae; valid estimators: vimco, "
            "score_loo, score, disarm, arm, rebar, ovis, wake, gumbel_softmax, straight_through.",
        ),
        (
            {"k": 1, "estimator": "vimco"},
            "--estimator=vimco compares draws, and needs --k of at least 2; got 1. For one draw: "
            "score, disarm, arm, rebar, wake, gumbel_softmax, straight_through.",
        ),
        (
            {"estimator": "rebar", "latent_dims": (3, 2)},
            "--estimator=rebar needs one stochastic layer; got --latent_dims=3,2.",
        ),
        (
            {"score_baseline": "network"},
            "--score_baseline=network needs --estimator=score, which alone subtracts it; got "
            "--estimator=vimco.",
        ),
        (
            {"objective": "rws", "score_baseline": "mean"},
            "--score_baseline=mean needs --estimator=score, which alone subtracts it; got "
            "--objective=rws.",
        ),
        (
            {"score_baseline": "nvil"},
            "--score_baseline must be one of none, mean, network; got 'nvil'.",
        ),
        (
            {"objective": "info_vae"},
            "--objective=info_vae does not go with --model=sbn, whose latents are discrete: it "
            "needs draws with a derivative, for reparam.",
        ),
        (
            {"objective": "elbo", "kl": "analytic", "latent_dims": (3, 2)},
            "--objective=elbo with --kl=analytic needs one stochastic layer, since the KL of 2 has "
            "no closed form; use --kl=mc.",
        ),
        (
            {"hidden_dims": (4, 0)},
            "--hidden_dims must be whole numbers of at least 1, separated by commas; got '4,0'.",
        ),
    ],
    ids=str,
)
def test_what_discrete_latents_exclude(options, sentence):
    assert refusal(model="sbn", **options) == sentence
