"""Completions of a beginning against quadrature over z, and walks between texts."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import configs, data, models
from elbo_lab.data import Batch, Text
from elbo_lab.errors import UserError
from elbo_lab.methods import variational
from elbo_lab.models.base import NOTHING_GIVEN
from elbo_lab.runs import poems, text_records

pytestmark = pytest.mark.slow
LENGTH, LEVELS = 3, 3
EVERY = np.array(list(itertools.product(range(LEVELS), repeat=LENGTH)), np.int32)


def run_of(**options) -> SimpleNamespace:
    """What `poems` reads of a run, with one latent and weights far from their start."""
    config = configs.make(
        model="text", latent_dims=(1,), embedding_dim=3, width=4, layers=1, **options
    )
    dataset = data.Dataset(
        "abc", EVERY, EVERY[:4], None, None, (LENGTH,), kind="token", levels=LEVELS,
        text=Text("abc", LENGTH, LENGTH),
    )  # fmt: skip
    spec = data.spec_of(dataset, "none")
    model = models.make(config, spec)
    params = model.init(jax.random.key(0), Batch(jnp.asarray(EVERY)))
    rng = np.random.default_rng(3)
    params = jax.tree.map(lambda p: p + rng.normal(size=p.shape).astype("f"), params)

    def encode(x):
        return variational.encode(model, params, (), Batch(jnp.asarray(x)))

    return SimpleNamespace(
        config=config, dataset=dataset, spec=spec, params=params, stats=(), path="runs/abc",
        method=SimpleNamespace(encode=encode, classes=None), encode=encode, model=model,
    )  # fmt: skip


@pytest.mark.parametrize("decoder", ["positionwise", "autoregressive"])
def test_completions_follow_the_law_given_the_beginning(decoder):
    """p(x_2, x_3 | x_1 = b) by Gauss-Hermite quadrature over z of p(x|z)."""
    run = run_of(text_decoder=decoder)
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(60)
    z = jnp.asarray(nodes[:, None], jnp.float32)
    law = run.model.likelihood(run.params, z, NOTHING_GIVEN)
    masses = np.exp(np.asarray(law.log_prob(jnp.asarray(EVERY)[:, None]), np.float64))
    masses = masses @ (node_weights / node_weights.sum())
    np.testing.assert_allclose(masses.sum(), 1, rtol=1e-5)
    given = masses.reshape(LEVELS, -1)[1]
    expected = given / given.sum()
    done = poems.completed(run, jax.random.key(0), " b ", 6_000)
    assert np.all(done.x[:, 0] == 1)
    share = np.bincount(done.x[:, 1:] @ [LEVELS, 1], minlength=9) / 6_000
    # The draws share 10,000 candidates of z.
    error = np.sqrt(expected / 6_000 + expected / done.effective_sample_size)
    np.testing.assert_array_less(abs(share - expected), 4.5 * error)
    assert 100 < done.effective_sample_size < poems.CANDIDATES


def test_a_walk_goes_from_one_code_to_the_other_with_the_same_noise():
    run = run_of()
    ends = poems.pairs_of(run, ["abc", "c ba"], None)
    np.testing.assert_array_equal(ends, [[[0, 1, 2], [2, 1, 0]]])
    walk = poems.walk(run, jax.random.key(0), np.concatenate([ends, ends[:, [0, 0]]]))
    codes = np.asarray(run.encode(ends[0]))
    np.testing.assert_allclose(walk.z[0, [0, -1]], codes, rtol=1e-5)
    np.testing.assert_allclose(walk.z[0, 5], codes.mean(axis=0), rtol=1e-5)
    # Without a change of z nothing changes.
    assert np.all(walk.x[1] == walk.x[1, :1]) and walk.x.shape == (2, 11, LENGTH)
    np.testing.assert_array_equal(poems.pairs_of(run, [], [3, 0]), EVERY[[[3, 0]]])


def test_texts_that_a_run_cannot_take():
    run = run_of()

    def refusal(function, *arguments) -> str:
        with pytest.raises(UserError) as caught:
            function(run, *arguments)
        return str(caught.value)

    key = jax.random.key(0)
    assert refusal(poems.completed, key, "ax", 2) == (
        "--prefix: 'ax' has the character 'x', which is not among the 3 characters of the text "
        "that runs/abc saw."
    )
    assert refusal(poems.completed, key, "abca", 2) == (
        "--prefix must have 1 to 2 characters, since the texts of runs/abc have 3; got 4."
    )
    assert refusal(poems.pairs_of, ["abc", "ab"], None) == (
        "--poem must have 3 characters, as the texts of runs/abc have; got 2 in 'ab'."
    )
    assert refusal(poems.pairs_of, ["abc"], None).endswith("for both ends; got 1.")
    assert refusal(poems.pairs_of, [], [1, 2, 3]).endswith("got '1,2,3', an odd number.")
    assert refusal(poems.pairs_of, [], [1, 4]).endswith("in 0..3; got 4.")


def test_tokens_are_read_from_the_directory_alone(tmp_path):
    text = Text("abc夜", 4, 2)
    text_records.write(tmp_path, text)
    assert text_records.read(tmp_path) == text
    assert text_records.shown(text, "ab夜c") == "ab 夜c"
    (tmp_path / "text.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged: vocabulary is missing"):
        text_records.read(tmp_path)
