"""SOAP against Adam and against an independent computation in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elbo_lab.training import soap

SETTINGS = {"b1": 0.9, "b2": 0.8, "eps": 1e-6, "decay": 0.7, "frequency": 3, "factor_every": 2}


def gradients(shape: tuple[int, ...], steps: int, seed: int = 0) -> np.ndarray:
    """[steps, *shape], correlated along the axes."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(steps, *shape))
    for axis, n in enumerate(shape, 1):
        mixing = rng.normal(size=(n, n)) / np.sqrt(n)
        values = np.moveaxis(np.tensordot(values, mixing, (axis, 0)), -1, axis)
    return values


def directions(grads: list, **settings) -> list:
    """The directions of a sequence of gradients."""
    soap_adam = soap.scale_by_soap(**settings)
    state, results = soap_adam.init(jax.tree.map(jnp.zeros_like, grads[0])), []
    update = jax.jit(soap_adam.update)
    for grad in grads:
        result, state = update(grad, state)
        results.append(result)
    return results


def reference(grads: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Directions by the docstring of `scale_by_soap`, in NumPy and float64.

    The first moment is kept in the parameters' coordinates, and each step writes the bases out as
    one matrix on the flattened array, which `scale_by_soap` never forms.
    """
    shape, size = grads.shape[1:], grads[0].size
    decay, b1, b2 = SETTINGS["decay"], SETTINGS["b1"], SETTINGS["b2"]
    factors = {axis: 0.0 for axis in axes}
    bases = {axis: np.eye(shape[axis]) for axis in axes}

    def whole() -> np.ndarray:
        """[size, size], whose columns are the basis of the flattened array."""
        matrix = np.ones((1, 1))
        for axis, n in enumerate(shape):
            matrix = np.kron(matrix, bases.get(axis, np.eye(n)))
        return matrix

    results, mean, square = [], np.zeros(size), np.zeros(size)
    for t, grad in enumerate(grads):
        if t % SETTINGS["factor_every"] == 0:
            for axis in axes:
                rows = np.moveaxis(grad, axis, 0).reshape(shape[axis], -1)
                kept = decay if t else 0.0
                factors[axis] = kept * factors[axis] + (1 - kept) * rows @ rows.T
        old = whole()
        if axes and t == 0:
            results.append(np.zeros(shape))
            bases = {axis: np.linalg.eigh(factors[axis])[1][:, ::-1] for axis in axes}
            continue
        number = t if axes else t + 1
        mean = b1 * mean + (1 - b1) * grad.ravel()
        square = b2 * square + (1 - b2) * (old.T @ grad.ravel()) ** 2
        square_hat = square / (1 - b2**number)
        rounding = 256 * np.finfo(float).eps if axes else 0.0
        least = SETTINGS["eps"] + rounding * np.sqrt(np.mean(square_hat))
        root = np.sqrt(square_hat) + least
        results.append((old @ (old.T @ mean / (1 - b1**number) / root)).reshape(shape))
        if t % SETTINGS["frequency"] == 0:
            for axis in axes:
                product = factors[axis] @ bases[axis]
                quotients = np.diag(bases[axis].T @ product)
                bases[axis] = np.linalg.qr(product[:, np.argsort(-quotients)])[0]
            square = square @ (old.T @ whole()) ** 2
    return np.stack(results)


@pytest.mark.parametrize(
    ("shape", "max_dim", "axes"),
    # Square: the factors of a longer axis begin singular, and their null spaces have no one basis.
    [((5, 5), 8, (0, 1)), ((6, 4), 5, (1,)), ((3, 1, 2, 4), 3, (0, 2)), ((6, 4), 3, ())],
    ids=["matrix", "one_sided", "kernel", "adam"],
)
def test_directions_are_those_of_the_formula_in_float64(shape, max_dim, axes):
    grads = gradients(shape, 8)
    vectors = grads.reshape(8, -1)[:, :3]
    with jax.enable_x64(True):
        pairs = zip(jnp.asarray(grads), jnp.asarray(vectors), strict=True)
        results = directions([{"w": w, "b": b} for w, b in pairs], max_dim=max_dim, **SETTINGS)
        assert {leaf.dtype for leaf in jax.tree.leaves(results)} == {np.dtype("float64")}
    expected = {"w": reference(grads, axes), "b": reference(vectors, ())}
    for name, value in expected.items():
        got = np.stack([result[name] for result in results])
        np.testing.assert_allclose(got, value, rtol=1e-9, atol=1e-9)


def test_rounding_errors_are_not_scaled_up():
    rng = np.random.default_rng(0)
    span = rng.normal(size=(3, 16))  # of the rows of all gradients
    grads = [jnp.asarray(rng.normal(size=(16, 3)) @ span, jnp.float32) for _ in range(12)]
    outside = np.eye(16) - np.linalg.pinv(span) @ span
    for result in directions(grads, **SETTINGS)[1:]:
        # Scaled up, they are most of the direction: three of 16 dimensions are inside.
        assert np.linalg.norm(result @ outside) < 0.05 * np.linalg.norm(result)


def test_nothing_preconditioned_is_optax_adam():
    grads = list(jnp.asarray(gradients((6, 4), 5), jnp.float32))
    adam = optax.scale_by_adam(0.9, 0.8, 1e-6)
    state, update = adam.init(grads[0]), jax.jit(adam.update)
    for grad, result in zip(grads, directions(grads, max_dim=3, **SETTINGS), strict=True):
        expected, state = update(grad, state)
        np.testing.assert_allclose(result, expected, rtol=0, atol=4 * np.finfo(np.float32).eps)


@pytest.mark.slow
def test_replicates_with_a_common_step_equal_single_ones():
    values = jnp.asarray(np.stack([gradients((4, 3), 5, seed) for seed in (1, 2)], 1), jnp.float32)
    transformation = soap.scale_by_soap(**SETTINGS)
    states = jax.vmap(transformation.init)(values[0])
    update = jax.jit(
        jax.vmap(lambda g, s, step: transformation.update(g, s, step=step), (0, 0, None))
    )
    text = str(jax.make_jaxpr(update)(values[0], states, jnp.int32(0)))
    assert "cond[" in text  # the branches stay branches
    for step, grads in enumerate(values):
        results, states = update(grads, states, jnp.int32(step))
        if step == 4:
            for replicate in range(2):
                single = directions(list(values[:, replicate]), **SETTINGS)[-1]
                np.testing.assert_allclose(results[replicate], single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"b1": 1.0}, r"b1 must lie in \[0, 1\); got 1.0"),
        ({"decay": -0.1}, r"decay must lie in \[0, 1\); got -0.1"),
        ({"eps": 0.0}, "eps must be positive; got 0.0"),
        ({"frequency": 0}, "frequency must be at least 1; got 0"),
        ({"factor_every": 0}, "factor_every must be at least 1; got 0"),
        ({"max_dim": -1}, "max_dim must be at least 0; got -1"),
    ],
)
def test_arguments_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        soap.scale_by_soap(**settings)
