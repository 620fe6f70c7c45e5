"""Chains that lie in one vector against NumPyro's own kernels on the model's sites."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import numpyro.infer
import pytest
from jax.flatten_util import ravel_pytree

from hmcvi.inference import HMC, NUTS
from hmcvi.inference.chain_start import start_chains
from hmcvi.models import mlp

KEYS = jax.random.split(jax.random.key(3), 3)
X = np.linspace(-1, 1, 12, dtype=np.float32)[:, None] * np.ones(2, np.float32)
Y = np.sin(3 * X[:, 0])
MODEL = partial(mlp, widths=(3,), likelihood="normal")  # with a scale, whose support is half a line

KERNELS = {
    "nuts": (NUTS(num_warmup=10, num_chains=3), numpyro.infer.NUTS(MODEL, init_strategy=numpyro.infer.init_to_sample)),
    "nuts, dense": (
        NUTS(num_warmup=10, num_chains=3, dense_mass=True),
        numpyro.infer.NUTS(MODEL, init_strategy=numpyro.infer.init_to_sample, dense_mass=True),
    ),
    "hmc": (
        HMC(num_warmup=10, num_chains=3, trajectory_length=1.0),
        numpyro.infer.HMC(MODEL, init_strategy=numpyro.infer.init_to_sample, trajectory_length=1.0),
    ),
}


@pytest.mark.parametrize("name", KERNELS)
def test_the_first_draws_are_those_of_numpyros_kernel(name):
    """Later ones differ by rounding that trajectories amplify."""
    method, kernel = KERNELS[name]
    ours = method.start(KEYS, MODEL, X, Y)
    theirs = kernel.init(KEYS, 10, None, (X, Y), {})
    state, draw = ours.state, jax.jit(jax.vmap(ours.draw, in_axes=(0, None, None)))
    for _ in range(3):
        place = jax.vmap(ours.constrain(X, Y))(ours.record(state)["z"])
        wanted = jax.vmap(kernel.postprocess_fn((X, Y), {}))(theirs.z)
        assert place.keys() == wanted.keys()
        for site, values in wanted.items():
            np.testing.assert_allclose(place[site], values, rtol=2e-3, atol=2e-3, err_msg=site)
        np.testing.assert_array_equal(state.num_steps, theirs.num_steps)
        np.testing.assert_allclose(state.adapt_state.step_size, theirs.adapt_state.step_size, rtol=1e-3)
        state, theirs = draw(state, X, Y), kernel.sample(theirs, (X, Y), {})


def test_a_vector_has_the_density_and_the_values_of_its_sites():
    begun = start_chains(KEYS, MODEL, X, Y)
    sites = jax.vmap(begun.constrain(X, Y))(begun.position)
    assert begun.position.shape == (3, 2 * 3 + 3 + 3 + 1 + 1)
    assert {name: of.shape for name, of in sites.items()} == {
        "hidden_0.kernel": (3, 2, 3),
        "hidden_0.bias": (3, 3),
        "out.kernel": (3, 3, 1),
        "out.bias": (3, 1),
        "noise_scale": (3,),
    }
    free = dict(sites, noise_scale=jnp.log(sites["noise_scale"]))
    for chain in range(3):
        own = jax.tree.map(lambda values, chain=chain: values[chain], free)
        np.testing.assert_allclose(begun.position[chain], ravel_pytree(own)[0], rtol=1e-6)
        density = partial(numpyro.infer.util.potential_energy, MODEL, (X, Y), {})
        np.testing.assert_allclose(begun.potential_energy[chain], density(own), rtol=1e-5)
        np.testing.assert_allclose(begun.potential(X, Y)(begun.position[chain]), density(own), rtol=1e-5)
        np.testing.assert_allclose(begun.gradient[chain], ravel_pytree(jax.grad(density)(own))[0], rtol=1e-3, atol=1e-3)


def test_a_model_that_no_draw_suits_is_refused_as_numpyro_says_it():
    def impossible(x, y=None):
        w = numpyro.sample("w", dist.Normal().expand([2]).to_event(1))
        numpyro.factor("never", jnp.nan * w.sum())
        numpyro.sample("y", dist.Normal(x @ w, 1), obs=y)

    with pytest.raises(RuntimeError, match="Cannot find valid initial parameters"):
        start_chains(KEYS, impossible, X, Y)
