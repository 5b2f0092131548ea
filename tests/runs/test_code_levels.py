"""Chains of runs: a VQ-VAE of two levels, a density of its top codes, one of its bottom codes."""

import shutil

import jax
import numpy as np
import pytest

import elbo_lab
from elbo_lab.data import contexts
from elbo_lab.errors import UserError
from elbo_lab.models import Given
from elbo_lab.reports import results
from elbo_lab.runs import derived, examples, sampling, stages
from tests.runs.test_loading import NUM_TEST, NUM_TRAIN, refusal, store

pytestmark = [pytest.mark.usefixtures("fast_compilation"), pytest.mark.slow]

# Grids of 2 x 2 and 3 x 3 codes of 5 x 6 images.
VQVAE = {
    "model": "vqvae",
    "code_levels": 2,
    "channels": (3,),
    "num_codes": 5,
    "code_dim": 2,
    "residual_blocks": 0,
}
PIXELCNN = {"model": "pixelcnn", "width": 4, "layers": 1, "output_width": 4, "embedding_dim": 2}
TOP, BOTTOM = (2, 2), (3, 3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with images, and the three runs, whose parameters are initial ones."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    sizes = {"train": NUM_TRAIN, "test": NUM_TEST}
    images = {f"x_{s}": rng.integers(0, 256, (n, 5, 6), np.uint8) for s, n in sizes.items()}
    labels = {f"y_{s}": np.arange(n) % 3 for s, n in sizes.items()}
    np.savez(folder / "noise.npz", **images, **labels)
    jax.config.update("jax_disable_most_optimizations", True)
    store(folder / "vqvae", dataset=str(folder / "noise.npz"), **VQVAE)
    store(folder / "top", dataset=f"codes:{folder / 'vqvae'}", **PIXELCNN)
    store(folder / "bottom", dataset=f"codes:{folder / 'top'}", **PIXELCNN)
    return folder


@pytest.fixture(scope="module")
def bottom(made):
    return derived.load_run(made / "bottom")


def test_each_run_of_the_chain_has_the_codes_of_its_level_and_those_above(made, bottom):
    vqvae, top = elbo_lab.load(made / "vqvae"), derived.load_run(made / "top")
    x = np.asarray(examples.test_examples(vqvae.config, vqvae.dataset, vqvae.spec).x)
    codes = np.asarray(vqvae.encode(x))
    assert top.spec.shape == TOP and bottom.spec.shape == BOTTOM
    np.testing.assert_array_equal(
        np.concatenate([top.dataset.x_test, bottom.dataset.x_test], 1), codes
    )
    np.testing.assert_array_equal(contexts(bottom.dataset)[1], top.dataset.x_test)
    np.testing.assert_array_equal(contexts(bottom.dataset)[0], top.dataset.x_train)
    assert (top.spec.context, bottom.spec.context) == ((), vqvae.method.code_specs[:1])
    np.testing.assert_array_equal(bottom.dataset.y_test, np.arange(NUM_TEST) % 3)
    assert bottom.dataset.notes[-1].startswith(f"their level 2, given what {top.path} models")


def test_the_whole_bound_is_the_sum_of_all_parts(made, bottom):
    vqvae, top = elbo_lab.load(made / "vqvae"), derived.load_run(made / "top")
    key, test = jax.random.key(0), bottom.dataset
    measured = bottom.measure(key, test.x_test, context=contexts(test)[1])
    log_top = top.measure(key, top.dataset.x_test)["log_px"]
    values = measured | stages.pair_bound(test, measured)
    x = examples.test_examples(vqvae.config, vqvae.dataset, vqvae.spec).x
    codes = np.concatenate([top.dataset.x_test, test.x_test], axis=1)
    mean = test.decode(codes).reshape(NUM_TEST, -1).astype(np.float64)
    log_px_code = np.log(np.where(np.asarray(x) == 1, mean, 1 - mean)).sum(axis=1)
    np.testing.assert_allclose(values["log_px_code"], log_px_code, rtol=1e-5)
    np.testing.assert_allclose(values["log_pz_above"], log_top, rtol=1e-5)
    expected = log_px_code + log_top + measured["log_px"]
    np.testing.assert_allclose(values["pair_bound"], expected, rtol=1e-5)
    # The top level alone has no bound of log p(x).
    assert stages.pair_bound(top.dataset, {"log_px": log_top}) == {}
    rows = results.test_results(bottom.config, values, bottom.spec)
    assert [row.symbol for row in rows] == [
        "log p(codes|codes above)",
        "log p(x|codes)",
        "log p(codes above)",
        "log p(x|codes) p(codes)",
    ]
    # log p(top) is stored with the run that models it, and read from there.
    (file,) = (made / "top" / derived.FOLDER).iterdir()
    time = file.stat().st_mtime_ns
    derived.load(f"codes:{made / 'top'}")
    assert file.stat().st_mtime_ns == time


def test_draws_are_of_the_top_then_of_the_bottom_and_decoded_together(made, bottom):
    parts = []
    draws = bottom.draws(jax.random.key(3), 4, parts.append)
    assert parts == sorted(parts) and parts[-1] == 1 and min(parts) < 0.5
    assert draws.x.shape == (4, 9) and draws.context.shape == (4, 4)
    key_above, key_own = jax.random.split(jax.random.key(3))
    top = derived.load_run(made / "top")
    np.testing.assert_array_equal(draws.context, top.draws(key_above, 4).x)
    given = Given(context=draws.context)
    own = bottom.method.sample(key_own, bottom.params, bottom.stats, 4, given)
    np.testing.assert_array_equal(draws.x, own)
    np.testing.assert_array_equal(bottom.sample(jax.random.key(3), 4), draws.x.reshape(4, *BOTTOM))
    images = sampling.sample(bottom, jax.random.key(5), 4)
    assert images.shape == (4, 5, 6) and np.all((images > 0) & (images < 1))


def test_a_context_of_another_kind_is_refused(made, bottom):
    key, x = jax.random.key(0), bottom.dataset.x_test
    context = np.asarray(contexts(bottom.dataset)[1])
    for wrong, words in [
        (None, "context is missing"),
        (context[:, :3], r"\[7, 4\], the codes of the levels above; got int32 \(7, 3\)"),
        (context.astype(float), "got float64"),
        (context + 1 - context.min() + 4, "whole numbers in 0..4, .* got 5 to"),
    ]:
        with pytest.raises(ValueError, match=words):
            bottom.measure(key, x, context=wrong)
    top = derived.load_run(made / "top")
    with pytest.raises(ValueError, match="top is not conditioned on codes; give no context"):
        top.measure(key, top.dataset.x_test, context=context)


def test_broken_chains_are_refused(made, tmp_path):
    vqvae, top, bottom = (f"codes:{made / name}" for name in ("vqvae", "top", "bottom"))
    assert refusal(bottom) == (
        f"{made / 'bottom'} models the lowest level of codes, 2 of 2; there is none below it."
    )
    labelled = store(tmp_path / "labelled", dataset=vqvae, condition="label", **PIXELCNN)
    assert "models codes given labels" in refusal(f"codes:{labelled}")
    unfinished = store(tmp_path / "unfinished", 1, dataset=vqvae, **PIXELCNN)
    assert f"{unfinished} is at step 1 of 3" in refusal(f"codes:{unfinished}")
    for name in ("top", "vqvae"):
        shutil.copytree(made / name, tmp_path / "kept" / name)
    try:
        # Another density of the top codes gives other bounds and samples.
        store(made / "top", dataset=vqvae, seed=1, **PIXELCNN)
        words = f"{made / 'bottom'} cannot be loaded: {made / 'top'}, whose codes these are, was"
        with pytest.raises(UserError, match=words):
            derived.load_run(made / "bottom")
        shutil.rmtree(made / "top")
        shutil.copytree(tmp_path / "kept" / "top", made / "top")
        store(made / "vqvae", dataset=str(made / "noise.npz"), seed=1, **VQVAE)
        words = f"trained on {top}: {made / 'top'} cannot be loaded: {made / 'vqvae'}, whose codes"
        with pytest.raises(UserError, match=words):
            derived.load_run(made / "bottom")
    finally:
        for name in ("top", "vqvae"):
            shutil.rmtree(made / name, ignore_errors=True)
            shutil.copytree(tmp_path / "kept" / name, made / name)
