"""The table of a run (its objective, its data), and the figures that are written."""

import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import configs, losses
from elbo_lab.files import write_summary
from elbo_lab.methods import Picture
from elbo_lab.reports import figures
from elbo_lab.reports.tables import Result
from elbo_lab.runs import reporting, run_files
from elbo_lab.training import Failure, TrainState
from elbo_lab.training.metrics import MetricLog


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"objective": "elbo", "kl": "mc"}, "elbo, k = 5, mc KL, reparam estimator"),
        (
            {"objective": "beta_vae", "beta": "linear:0:4:100"},
            "beta_vae, k = 5, beta = linear:0:4:100, analytic KL, reparam estimator",
        ),
        ({"objective": "piwae", "m": 2}, "piwae, k = 5, m = 2, reparam estimator"),
        (
            {"estimator": "score", "score_baseline": "mean"},
            "iwae, k = 5, score estimator, learned baseline (mean)",
        ),
        (
            {"objective": "renyi", "alpha": "-inf"},
            "renyi, k = 5, alpha = -inf, reparam estimator",
        ),
        ({"objective": "rws", "phase": "both"}, "rws, k = 5, phase = both"),
        ({"objective": "gan"}, "gan, gan_loss = nonsaturating"),
        (
            {"objective": "gan", "gan_loss": "wasserstein"},
            "gan, gan_loss = wasserstein, gradient_penalty = 10",
        ),
    ],
)
def test_the_objective_with_settings_that_were_given(settings, text):
    used = configs.resolved(configs.make(**settings))
    assert reporting.objective_text(configs.to_dict(used)) == text


@pytest.mark.parametrize("objective", losses.CATALOGUE)
def test_the_objective_with_the_defaults_of_its_settings_and_no_others(objective):
    used = configs.to_dict(configs.resolved(configs.make(objective=objective)))
    text = reporting.objective_text(used)
    assert text.startswith(f"{objective}, k = 5")
    for name in configs.option_types():
        shown = f"{used[name]} KL" if name == "kl" and name in used else f", {name} = "
        assert (shown in text) == (objective in configs.owners(name)[1])
    assert text.endswith(" estimator") == bool(losses.CATALOGUE[objective].estimators)


def test_the_model_with_what_is_not_standard_in_its_latent_variables():
    settings = {"latent_dims": (8, 3), "posterior": "full", "prior": "mixture"}
    text = reporting.model_text(configs.to_dict(configs.make(**settings)))
    assert text == "mlp, latent dimensions 8, 3, full covariance, mixture prior"
    settings = {"latent_dims": (8,), "posterior_min_kl": 0.25}
    text = reporting.model_text(configs.to_dict(configs.make(**settings)))
    assert text == "mlp, latent dimensions 8, KL of each latent at least 0.25"
    # As versions without these settings store it.
    assert (
        reporting.model_text({"model": "conv", "latent_dims": [9]}) == "conv, latent dimensions 9"
    )


def test_the_table_of_data_that_are_not_images_speaks_of_examples(tmp_path):
    config = configs.make(dataset="codes:runs/x", model="pixelcnn")
    nats = {"unit": "nats per example", "over": "examples", "split": "test", "count": 7}
    summary = {
        **{"elbo_lab": "1", "jax": "1", "device": "a device", "steps": 3},
        "config": configs.to_dict(config),
        "replicas": [configs.to_dict(config)],
        "data": {
            **{"name": "codes:runs/x", "kind": "token", "binarization": "none", "notes": ["note"]},
            **{"image_shape": [2, 2], "train_images": 12, "test_images": 7},
        },
        **{"failed_at": {"0": -1}, "failed_replicates": []},
        "results": [
            Result("log-likelihood", "log p(x)", -9.0, 0.5, **nats)._asdict(),
            Result(run_files.WALL_TIME, "", 1.0)._asdict(),
            Result(run_files.SPEED, "", 1.0)._asdict(),
        ],
    }
    write_summary(tmp_path / "summary.json", summary)
    table = reporting.stored_table(tmp_path)
    assert "codes:runs/x, note\n" in table
    assert f"3 steps of {config.batch_size} examples on a device" in table
    assert "one standard error over 7 examples" in table
    assert "image" not in table and "binarization" not in table


def test_figures_are_the_pictures_of_the_method_by_name(begun, monkeypatch):
    """The first replicate that was evaluated is drawn, and no quantity that was not measured."""
    run, axis = begun(initialized=False, log_every=5), np.array([-1.0, 0.0, 1.0])

    def levels(key, params, stats, batch):
        return jnp.full((20, 16), params["w"] * stats["level"])

    def copies(key, params, stats, batch):
        return batch.x

    def plane(key, params, stats, batch):
        return jnp.linspace(0, 1, 9)[:, None] * jnp.ones(16)

    pictures = {
        "levels": Picture(levels, "Levels", rows=("a", "b")),
        "copies": Picture(copies, "Copies", beside_inputs=True),
        "plane": Picture(plane, "Plane", axes=axis),
    }
    run.method = run.method._replace(pictures=pictures, terms=("total", "part"))
    own = {"w": jnp.array([0.5, 0.25])}, {"level": jnp.array([1.0, 2.0])}
    run.state = TrainState(jnp.int32(5), own[0], (), Failure.none(run.method.terms), own[1])
    with MetricLog(run.path, -1, tensorboard=False) as log:
        log.write({"step": 5, "total": [1.0, 2.0], "part": [3.0, 4.0], "seconds": 1.0})
    drawn = {}
    for name in ("learning_curves", "image_grid", "reconstructions", "latent_grid"):

        def draw(path, *arguments, name=name):  # real figures are tested in tests/reports
            drawn[path.name] = name, arguments
            path.touch()

        monkeypatch.setattr(figures, name, draw)
    reporting.draw(run, {1: {"elbo": np.zeros(10)}})
    written = sorted(path.name for path in (run.path / "figures").iterdir())
    assert written == ["copies.png", "learning_curves.png", "levels.png", "plane.png"]
    assert written == sorted(drawn)
    kind, (_, curves) = drawn["learning_curves.png"]
    assert kind == "learning_curves"
    assert {name: title for name, (title, _) in curves.items()} == {
        "total": "total",
        "part": "part",
    }
    kind, (images, _, title, rows) = drawn["levels.png"]
    assert (kind, title, rows) == ("image_grid", "Levels", ("a", "b"))
    np.testing.assert_array_equal(images, np.full((20, 4, 4), 0.5))
    kind, pair = drawn["copies.png"]
    assert kind == "reconstructions"
    for images in pair:
        np.testing.assert_array_equal(images.reshape(-1, 16), run.test_examples().x)
    kind, (images, size, values) = drawn["plane.png"]
    assert (kind, size, images.shape) == ("latent_grid", 3, (9, 4, 4))
    np.testing.assert_array_equal(values, axis)
