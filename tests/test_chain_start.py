"""Chains that lie in one vector, against NumPyro's own kernels and densities."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import numpyro.infer
import pytest
from jax.flatten_util import ravel_pytree

from hmcvi.inference import HMC, MCLMC, NUTS, fit
from hmcvi.inference.chain_start import start_chains
from hmcvi.models import mlp

KEYS = jax.random.split(jax.random.key(3), 3)
X = np.linspace(-1, 1, 12, dtype=np.float32)[:, None] * np.ones(2, np.float32)
Y = np.sin(3 * X[:, 0])
MODEL = partial(mlp, widths=(3,), likelihood="normal")  # with a scale, whose support is half a line

KERNELS = {
    "nuts": (NUTS(num_warmup=30, num_chains=3), numpyro.infer.NUTS, {}),
    "nuts, dense": (NUTS(num_warmup=30, num_chains=3, dense_mass=True), numpyro.infer.NUTS, {"dense_mass": True}),
    "nuts, shallow": (
        NUTS(num_warmup=30, num_chains=3, max_tree_depth=3, target_accept=0.6),
        numpyro.infer.NUTS,
        {"max_tree_depth": 3, "target_accept_prob": 0.6},
    ),
    "hmc": (
        HMC(num_warmup=30, num_chains=3, trajectory_length=0.1, target_accept=0.7),
        numpyro.infer.HMC,
        {"trajectory_length": 0.1, "target_accept_prob": 0.7},
    ),
}


@pytest.mark.parametrize("name", KERNELS)
def test_the_draws_are_those_of_numpyros_kernel_on_the_same_density(name):
    """In float64: in float32 trajectories soon amplify what rounding tells the two programs apart by."""
    method, kernel, options = KERNELS[name]
    with jax.enable_x64(True):
        x, y = X.astype(np.float64), Y.astype(np.float64)
        ours = method.start(KEYS, MODEL, x, y)
        begun = start_chains(jax.vmap(jax.random.split)(KEYS)[:, 1], MODEL, x, y)
        theirs = kernel(potential_fn=begun.potential(x, y), **options)
        state, wanted = ours.state, theirs.init(KEYS, 30, begun.position, (), {})
        draw = jax.jit(jax.vmap(ours.draw, in_axes=(0, None, None)))
        for _ in range(15):
            np.testing.assert_allclose(state.z, wanted.z, rtol=1e-4, atol=1e-4)
            np.testing.assert_array_equal(state.num_steps, wanted.num_steps)
            np.testing.assert_allclose(state.adapt_state.step_size, wanted.adapt_state.step_size, rtol=1e-4)
            state, wanted = draw(state, x, y), theirs.sample(wanted, (), {})
        assert (state.z != begun.position).any(1).all()  # every chain has moved


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

    with pytest.raises(RuntimeError, match=r"Cannot find valid initial parameters\. Please check"):
        start_chains(KEYS, impossible, X, Y)


@pytest.mark.parametrize("method", [NUTS(num_warmup=20, num_draws=5), MCLMC(num_warmup=100, num_draws=5)])
def test_supports_whose_bounds_are_arrays_are_respected(method):
    def bounded(x, y=None):
        a = numpyro.sample("a", dist.HalfNormal())
        numpyro.sample("u", dist.Uniform(jnp.zeros(2), jnp.ones(2)).to_event(1))
        w = numpyro.sample("w", dist.Uniform(-a * jnp.ones(2), a).to_event(1))
        numpyro.sample("p", dist.Dirichlet(jnp.ones(3)))
        numpyro.sample("y", dist.Normal(x @ w, 1), obs=y)

    draws = fit(jax.random.key(0), bounded, X, Y, method, progress=False).draws
    assert ((draws["u"] > 0) & (draws["u"] < 1)).all()
    assert (abs(draws["w"]) < draws["a"][..., None]).all()
    np.testing.assert_allclose(draws["p"].sum(-1), 1, rtol=1e-5)
