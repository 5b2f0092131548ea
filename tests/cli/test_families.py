"""Flags of model families and objectives: valid combinations, of one run and of a sweep."""

import dataclasses

import pytest
from absl import flags

from elbo_lab import configs
from elbo_lab.cli import grid_flags, run_flags, validation
from elbo_lab.configs import Config
from elbo_lab.errors import UserError
from elbo_lab.models import MODELS
from elbo_lab.models.registry import Family
from elbo_lab.options import option


@dataclasses.dataclass(frozen=True)
class DensityOptions:
    """Settings of a family that is trained by a loss of its own."""

    filters: int = option(8, "filters", least=2, most=64)
    activation: str = option("relu", "of the layers", ("relu", "elu"))
    dropout: float = option(0.0, "part of the units that is left out", least=0, most=0.9)
    commitment: float = option(0.25, "a weight", above=0, traced=True)
    depths: tuple[int, ...] | None = option(None, "layers", least=1)


@pytest.fixture(autouse=True)
def families(monkeypatch):
    """Besides mlp, a family of latent variables with fewer settings, and one with its own loss."""

    @dataclasses.dataclass(frozen=True)
    class LatentOptions:
        latent_dims: tuple[int, ...] = option((3,), "latent dimensions", least=1)

    for name in set(MODELS) - {"mlp"}:
        monkeypatch.delitem(MODELS, name)
    monkeypatch.setitem(MODELS, "latent", Family(LatentOptions, None, "", "elbo", 1))
    monkeypatch.setitem(MODELS, "density", Family(DensityOptions, None, ""))
    monkeypatch.setitem(validation.CHOICES, "model", tuple(MODELS))


def config_of(**texts: str) -> Config:
    config = run_flags.config_of(texts)
    validation.check(config)
    return configs.resolved(config)


def refusal(**texts: str) -> str:
    """The message that a user sees, with the setting of the protocol that it names."""
    with pytest.raises(UserError) as caught:
        config_of(**texts)
    values = flags.FlagValues()
    run_flags.define(values)
    run_flags.parse(values, ["", *(f"--{name}={text}" for name, text in texts.items())])
    return run_flags.with_protocol(str(caught.value), values)


def test_objective_and_draws_default_to_those_of_the_family():
    assert config_of() == Config(model="mlp", objective="iwae", k=5, estimator="reparam")
    latent = config_of(model="latent")
    assert (latent.objective, latent.k, latent.estimator) == ("elbo", 1, "reparam")
    density = config_of(model="density", filters="4", commitment="linear:1:2:9")
    assert (density.objective, density.k, density.estimator) == (None, None, None)
    assert density.model_options == DensityOptions(filters=4, commitment="linear:1:2:9")
    assert configs.from_dict(configs.to_dict(density)) == density
    assert (configs.label(latent), configs.label(density)) == ("latent-elbo-k1", "density")


@pytest.mark.parametrize(
    ("name", "value"), [("objective", "elbo"), ("k", "7"), ("estimator", "stl"), ("m", "2")]
)
def test_a_family_with_its_own_loss_takes_no_objective_draws_or_estimator(name, value):
    assert refusal(model="density", **{name: value}) == (
        f"--{name}={value} does not go with --model=density, which is trained by a loss of its own."
    )


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (
            {"model": "latent", "hidden_dims": "7"},
            "--hidden_dims is a setting of --model=mlp; got --model=latent.",
        ),
        (
            {"model": "density", "latent_dims": "7"},
            "--latent_dims is a setting of --model=mlp, latent; got --model=density.",
        ),
        ({"filters": "7"}, "--filters is a setting of --model=density; got --model=mlp."),
        (
            {"model": "density", "beta": "1"},
            "--beta=1.0 does not go with --model=density, which has no objective; objectives that "
            "have it: beta_vae, ciwae, beta_tcvae.",
        ),
        ({"model": "density", "filters": "1"}, "--filters must be at least 2; got 1."),
        ({"model": "density", "filters": "65"}, "--filters must be at most 64; got 65."),
        (
            {"model": "density", "activation": "tanh"},
            "--activation must be one of relu, elu; got 'tanh'.",
        ),
        (
            {"model": "density", "dropout": "1"},
            "--dropout must be a number of at least 0 and at most 0.9; got 1.0.",
        ),
        (
            {"model": "density", "commitment": "linear:0:1:9"},
            "--commitment must be a number above 0 and at most 3.4e+38; got linear:0:1:9.",
        ),
        (
            {"model": "density", "depths": "3,0"},
            "--depths must be whole numbers of at least 1, separated by commas; got '3,0'.",
        ),
        # A protocol is refused if it sets something that the family does not have.
        (
            {"model": "latent", "protocol": "tucker2018"},
            "--protocol=tucker2018 sets --center_inputs, a setting of --model=mlp; got "
            "--model=latent.",
        ),
    ],
    ids=str,
)
def test_settings_of_other_families_and_values_out_of_range(texts, sentence):
    assert refusal(**texts) == sentence


def test_a_protocol_without_settings_of_a_family_applies_to_every_family():
    config = config_of(model="latent", protocol="fast_adam")
    assert (config.objective, config.estimator, config.batch_size) == ("elbo", "dreg", 100)
    assert config.model_options.latent_dims == (3,)  # the family's own default
    assert refusal(model="density", protocol="fast").endswith(
        "loss of its own (--protocol=fast sets --estimator; --estimator= unsets it)."
    )
    assert config_of(model="density", protocol="fast", estimator="").batch_size == 250


def test_an_objective_without_draws_takes_none():
    config = config_of(objective="autoencoder")
    assert (config.k, config.estimator, configs.label(config)) == (None, None, "autoencoder")
    assert refusal(objective="autoencoder", k="3") == (
        "--k=3 does not go with --objective=autoencoder, which takes no draws."
    )
    assert configs.replace(config, objective="iwae") == Config()


def cells(monkeypatch, *argv: str):
    values = flags.FlagValues()
    run_flags.define(values, texts=True)
    run_flags.parse(values, ["", *argv])
    monkeypatch.setattr(flags, "FLAGS", values)
    return grid_flags.cells()


def test_in_a_sweep_a_flag_applies_to_the_cells_that_have_it(monkeypatch):
    argv = ("--model=mlp,latent,density", "--hidden_dims=7;9", "--latent_dims=2", "--filters=4")
    argv += ("--k=1,2", "--objective=elbo,beta_vae", "--beta=3", "--protocol=fast", "--estimator=")
    grid = cells(monkeypatch, *argv)
    assert all(cell.config is not None for cell in grid)
    names = [cell.name for cell in grid]
    assert len(names) == len(set(names)) == 2 * 2 * 2 + 2 * 2 + 1
    assert "objective=beta_vae, k=2, model=latent, hidden_dims=-" in names
    assert "objective=-, k=-, model=density, hidden_dims=-" in names
    by_model = {m: [c.config for c in grid if c.config.model == m] for m in MODELS}
    assert {c.model_options.hidden_dims for c in by_model["mlp"]} == {(7,), (9,)}
    assert {c.model_options.latent_dims for c in by_model["latent"]} == {(2,)}
    (density,) = by_model["density"]
    assert (density.model_options.filters, density.estimator, density.k) == (4, None, None)
    betas = [configs.all_values(c).get("beta") for c in by_model["latent"]]
    assert sorted(betas, key=str) == [3.0, 3.0, None, None]


def test_draws_and_estimators_apply_to_the_objectives_that_take_them(monkeypatch):
    argv = ("--objective=iwae,miwae,autoencoder,wake_sleep", "--k=2,5", "--m=8", "--estimator=stl")
    settings = [cell.config for cell in cells(monkeypatch, *argv)]
    assert [(c.objective, c.k, c.m, c.estimator) for c in settings] == [
        ("iwae", 2, 1, "stl"),
        ("iwae", 5, 1, "stl"),
        ("miwae", 2, 8, "stl"),
        ("miwae", 5, 8, "stl"),
        ("autoencoder", None, 1, None),
        ("wake_sleep", 2, 1, None),
        ("wake_sleep", 5, 1, None),
    ]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--model=mlp,latent", "--filters=4"], "--filters is a setting of --model=density"),
        (["--objective=elbo,iwae", "--beta=1,2"], "--beta=1.0 does not go with --objective=elbo"),
    ],
)
def test_a_flag_that_applies_to_no_cell_is_refused(monkeypatch, argv, words):
    with pytest.raises(UserError, match=words):
        cells(monkeypatch, *argv)
