"""Closed-form KLs by law against quadrature and summation, whichever library writes a law down."""

import functools
import itertools

import jax
import jax.numpy as jnp
import law_forms
import mpmath
import numpy as np
import numpyro.distributions as dist
import pytest
from law_forms import LAWS
from numpyro.distributions.kl import kl_divergence as numpyro_registry

from elbo_lab import losses
from elbo_lab.distributions import BernoulliVector
from elbo_lab.losses.divergences import kl_per_dimension

pytestmark = pytest.mark.usefixtures("fast_compilation")


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def divergences(name, forms):
    """In all and for each dimension, of any pair of forms of a law, as posterior and as prior."""
    _, several, one = LAWS[name]
    several = [jnp.asarray(values, float) for values in several]
    one = [jnp.full(2, value, float) for value in one]
    values = []
    for (make_q, independent_q), (make_p, independent_p) in itertools.product(forms, repeat=2):
        q, p = independent_q(make_q(*several)), independent_p(make_p(*one))
        values.append((losses.kl_divergence(q, p), kl_per_dimension(q, p)))
        # No wrapper, and one prior for both.
        p = make_p(*(value[0] for value in one))
        values.append((jnp.sum(losses.kl_divergence(make_q(*several), p)), values[-1][1]))
    return values


def check_laws(libraries):
    def forms(name):
        return [(f, independent) for forms, independent in libraries for f in forms.get(name, [])]

    computed = jax.jit(lambda: {name: divergences(name, forms(name)) for name in LAWS})()
    for name, pairs in computed.items():
        exact = law_forms.exact_kl(name)
        for summed, each in pairs:
            np.testing.assert_allclose(each, exact, rtol=1e-8, err_msg=name)
            np.testing.assert_allclose(summed, np.sum(exact), rtol=1e-8, err_msg=name)


def test_every_law_of_numpyro(float64):
    check_laws([(law_forms.NUMPYRO, law_forms.numpyro_independent)])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow_probability")
def test_every_law_across_libraries(float64):
    check_laws(law_forms.every_library())
