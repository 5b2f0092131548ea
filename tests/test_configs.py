"""Settings of families and objectives, and configurations as flat values."""

import inspect
import json
import math

import pytest

from elbo_lab import configs, losses
from elbo_lab.configs import Config
from elbo_lab.errors import UserError
from elbo_lab.models import MODELS
from elbo_lab.objective_options import OBJECTIVE_OPTIONS
from elbo_lab.optimizer_options import AdamOptions, MuonOptions, SoapOptions
from elbo_lab.options import options_of, types_of, values_of

# Arguments of objectives that are not their own settings: the method passes them, or all objectives
# share them.
PASSED = {
    *("key", "posterior", "prior", "log_likelihood", "generation_mean", "x", "dataset_size"),
    *("inference", "generation", "vectorized", "num_samples", "num_outer", "estimator"),
}


@pytest.mark.parametrize("objective", losses.OBJECTIVES)
def test_settings_of_an_objective_are_its_functions_arguments_and_defaults(objective):
    arguments = inspect.signature(losses.OBJECTIVES[objective]).parameters
    own = {name: a.default for name, a in arguments.items() if name not in PASSED}
    assert values_of(OBJECTIVE_OPTIONS[objective]()) == own


def test_a_setting_has_one_type_and_belongs_to_one_of_family_objective_and_optimizer():
    """A name has one flag, so its type is one, and so is whether it may be traced."""
    kinds: dict[str, tuple] = {name: () for name in configs.SHARED}
    for field, classes in configs.settings_classes().items():
        assert field in configs.SHARED and getattr(Config(), f"{field}_options") is not None
        for settings in classes.values():
            for name, option in options_of(settings).items():
                kind = field, types_of(settings)[name], option.traced
                assert kinds.setdefault(name, kind) == kind, name


@pytest.mark.parametrize("objective", losses.OBJECTIVES)
def test_stored_values_give_the_config_back(objective):
    numbers = configs.traced(Config(objective=objective))
    config = configs.make(
        objective=objective, seed=3, latent_dims=(4,), **dict.fromkeys(numbers, "linear:1:1:5")
    )
    assert configs.from_dict(json.loads(json.dumps(configs.to_dict(config)))) == config
    assert set(configs.non_defaults(config)) - {"objective"} == {
        "model",
        "seed",
        "latent_dims",
        *numbers,
    }


def test_infinite_orders_are_stored_as_text():
    config = configs.make(objective="renyi", alpha=-math.inf)
    assert configs.to_dict(config)["alpha"] == "-inf"
    assert configs.from_dict(configs.to_dict(config)) == config


def test_another_objective_has_its_own_defaults_and_keeps_values_that_were_set():
    plain = configs.replace(Config(objective="elbo"), objective="beta_vae", k=1)
    assert plain == Config(objective="beta_vae", k=1)  # The KL is beta_vae's default.
    config = configs.make(objective="dip_vae_i", lambda_off=3.0, hidden_dims=(7,))
    dip_vae_ii = configs.replace(config, objective="dip_vae_ii")
    assert dip_vae_ii == configs.make(objective="dip_vae_ii", lambda_off=3.0, hidden_dims=(7,))
    assert configs.replace(config, objective="iwae") == configs.make(hidden_dims=(7,))
    assert configs.replace(config, lambda_off=None).objective_options.lambda_off == 10.0


def test_a_family_has_its_own_number_of_draws_of_the_evaluation():
    for name, family in MODELS.items():
        assert Config(model=name).eval_k == (100 if name == "pixelvae" else 5000) == family.eval_k
    pixelvae = configs.replace(Config(), model="pixelvae")
    assert pixelvae.eval_k == 100 and "eval_k" not in configs.non_defaults(pixelvae)
    assert configs.replace(pixelvae, model="conv").eval_k == 5000
    chosen = configs.replace(Config(), eval_k=30)
    assert configs.replace(chosen, model="pixelvae").eval_k == 30
    stored = configs.to_dict(configs.replace(pixelvae, eval_k=5000))
    assert configs.from_dict(stored).eval_k == 5000


def test_settings_without_their_objective_or_family_are_refused():
    for values, message in (
        ({"beta": 2.0}, "--beta=2.0 does not go with --objective=iwae; objectives that have it: b"),
        ({"colour": "red"}, "There is no setting --colour."),
        ({"objective": "elboo"}, "--objective must be one of elbo, beta_vae"),
        ({"model": "mpl"}, "--model must be one of mlp"),
    ):
        with pytest.raises(UserError, match=message):
            configs.make(**values)
        if "beta" in values or "colour" in values:
            with pytest.raises(UserError, match="no such settings of --model=mlp"):
                configs.from_dict(values)
    assert configs.from_dict({"beta": None, "colour": None}) == Config()
    with pytest.raises(TypeError, match="configs.replace changes a model, an objective or an"):
        Config(objective="elbo", objective_options=Config().objective_options)


def test_a_digest_names_what_differs_from_the_defaults():
    assert configs.digest_values(Config()) == {"model": "mlp", "objective": "iwae"}
    expected = {"model": "mlp", "objective": "iwae", "k": 7, "hidden_dims": [4]}
    assert configs.digest_values(configs.make(k=7, hidden_dims=(4,))) == expected
    same = [Config(), Config(k=5), configs.make(latent_dims=(50,)), Config(objective="iwae")]
    assert len({configs.digest(config) for config in same}) == 1
    assert configs.digest(Config(k=6)) != configs.digest(Config())


def test_an_optimizer_has_its_own_defaults_and_keeps_values_that_were_set():
    assert Config().optimizer_options == AdamOptions()
    soap = configs.replace(Config(), optimizer="soap")
    assert soap == Config(optimizer="soap", optimizer_options=SoapOptions(adam_eps=1e-8))
    config = configs.make(adam_b2=0.5, adam_nu_start=1.0)
    assert configs.replace(config, optimizer="muon").optimizer_options == MuonOptions(adam_b2=0.5)
    back = configs.replace(configs.replace(config, optimizer="sgd"), optimizer="adam")
    assert back == Config()
    assert configs.from_dict(json.loads(json.dumps(configs.to_dict(soap)))) == soap
    with pytest.raises(TypeError, match="optimizer_options must be SGDOptions"):
        Config(optimizer="sgd", optimizer_options=AdamOptions())


def test_digests_of_runs_before_there_were_optimizers_are_the_same():
    """Digests of that version, which had Adam's settings as fields of every configuration."""
    code = {"adam_b1": 0.99, "adam_eps_hat": True, "adam_nu_start": 1.0}
    for settings, digest in (
        ({}, "efdf790b"),
        (code, "1ac44a47"),
        ({"model": "vqvae", "adam_eps": 1e-8, "clip_norm": 1.0}, "62f0b7ba"),
        ({"objective": "beta_vae", "adam_eps": 1e-4, "adam_b2": 0.99}, "f48ea9c3"),
    ):
        assert configs.digest(configs.make(**settings)) == digest
    values = configs.digest_values(configs.make(optimizer="soap", adam_eps=1e-8, ema=0.5))
    assert values == {"model": "mlp", "objective": "iwae", "optimizer": "soap", "ema": 0.5}
