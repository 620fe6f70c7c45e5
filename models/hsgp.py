"""The Hilbert-space Gaussian process: a GP as a linear model of few basis functions, for many rows of few inputs."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.hsgp.laplacian import eigenfunctions, sqrt_eigenvalues

from .gp import functions_of, hyperparameters, logits_of
from .kernels import KERNELS
from .layers import flatten
from .likelihoods import observe, output_width

__all__ = ["contract", "eigenbasis", "hsgp", "root_spectral_density"]

MOST_BASIS = 4096
"""Basis functions at most: in float32 a gradient over 10,000 rows works in 330 MB with so many along one feature, and
in 25 MB with 16 along each of three."""

SMOOTHNESS = {"matern32": 1.5, "matern52": 2.5}
"""ν of the Matérn kernels."""


def hsgp(
    x: jax.Array,
    y: jax.Array | None = None,
    *,
    kernel: str = "matern52",
    num_basis: int = 40,
    half_width: float = 5.0,
    likelihood: str = "normal",
    num_classes: int = 10,
    num_rows: int | None = None,
) -> jax.Array:
    """Hilbert-space approximation of the Gaussian process `gp`, a NumPyro model function.

    f(x) = amplitude (Σ_j √S_ℓ(√λ_j) φ_j(x) z_j + r(x) ε(x)), z ~ Normal(0, I): φ_j and λ_j are the eigenfunctions and
    eigenvalues of the Laplacian on the box [−half_width, half_width] in each feature, and S_ℓ is the kernel's
    spectral density (Riutort-Mayol et al. 2023, eq. 14; Solin & Särkkä 2020). A gradient costs rows × basis functions,
    where `gp` costs rows³; rows are independent given z, so minibatches serve.

    r(x)² = 1 − Σ_j S_ℓ φ_j(x)² is what the basis leaves out of the prior's variance, and ε(x) ~ Normal(0, 1) is each
    row's own, as in the fully independent conditional of `sgp`: the variance of f is then amplitude² at every x, as
    that of `gp`. r is nearly 0 where the approximation is good. Towards the edges of the box, where every φ_j
    vanishes, and beyond, rows tell nothing of each other, and predictions return to the prior. Regression integrates
    ε out: y ~ Normal(amplitude Σ_j √S_ℓ φ_j z_j, amplitude² r² + noise_scale²). Classification leaves ε out where y is
    given, and draws it as `latent_new` where y is None.

    The approximation is close for half_width ≥ a ℓ, half_width ≥ 1.2 times the largest |x|, and
    num_basis ≥ b half_width / ℓ, where (a, b) is (3.2, 1.75) for rbf, (4.1, 2.65) for matern52 and (4.5, 3.42) for
    matern32 (there, for one feature; PyMC's `approx_hsgp_hyperparams` takes the same). With the defaults these are
    lengthscales from 2.65 · 5 / 40 = 0.33 to 5 / 4.1 = 1.2 and |x| up to 5 / 1.2 = 4.2, in standardised inputs.

    Sites: `lengthscale` (feature,), `amplitude` () and `noise_scale` () with the priors they have in `gp`, `latent`
    (basis function, function) = z, and the observed `y` in the plate `data`; where y is None, `latent_new`
    (row, function) in classification, and `noise_new` in regression, which tells the noise in y from the doubt about
    f. Inputs and regression targets are expected standardised.

    Arguments:
        x: inputs (row, feature...); further axes are flattened.
        y: targets (row,), or None to draw them.
        kernel: "rbf", "matern32" or "matern52".
        num_basis: basis functions along each feature; their number in all is num_basis to the power of features.
        half_width: of the box, in standard deviations of the inputs.
        likelihood: "normal" (regression) or "categorical" (classification).
        num_classes: number of classes; ignored in regression. Two classes share one function, (0, f).
        num_rows: rows of the whole data set where x is a minibatch.

    Returns:
        y as observed or drawn (row,).

    Raises:
        ValueError: more than 4,096 basis functions, a kernel without a spectral density, a number out of range, or
            bad y as in `mlp`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from numpyro.infer import MCMC, NUTS
        >>> from hmcvi.models import hsgp
        >>> x = jnp.linspace(-1, 1, 20)[:, None]
        >>> mcmc = MCMC(NUTS(hsgp, max_tree_depth=5), num_warmup=20, num_samples=20, progress_bar=False)
        >>> mcmc.run(jax.random.key(0), x, jnp.sin(3 * x[:, 0]), num_basis=10)
        >>> mcmc.get_samples()["latent"].shape
        (20, 10, 1)
    """
    x = flatten(x)
    features = x.shape[1]
    _check(kernel, num_basis, half_width, features)
    functions = functions_of(output_width(likelihood, num_classes))
    lengthscale, amplitude, _ = hyperparameters(kernel, features, x.dtype)
    basis = eigenbasis(x, num_basis, half_width)
    frequency = sqrt_eigenvalues(half_width, [num_basis] * features, features).T.astype(x.dtype)
    root = root_spectral_density(kernel, frequency, lengthscale)[:, None]
    left_out = 1 - contract(basis**2, root**2)[:, 0]
    latent = numpyro.sample(
        "latent", dist.Normal(jnp.zeros((len(root), functions), x.dtype), jnp.ones((), x.dtype)).to_event(2)
    )
    # the weights are scaled, not the basis: nothing of rows × basis functions is made for the sake of a number
    outputs = contract(basis, amplitude * root * latent)
    variance = None
    if likelihood == "normal":
        variance = amplitude**2 * jnp.maximum(left_out, 0)
    elif y is None:
        # the floor, within rounding of 1, keeps the root's gradient finite
        spread = amplitude * jnp.sqrt(jnp.maximum(left_out, 8 * jnp.finfo(x.dtype).eps))[:, None]
        outputs = numpyro.sample("latent_new", dist.Normal(outputs, spread).to_event(2))
    if likelihood == "categorical":
        outputs = logits_of(outputs)
    return observe(outputs, y, likelihood=likelihood, num_rows=num_rows, num_classes=num_classes, own_variance=variance)


def eigenbasis(x: jax.Array, num_basis: int, half_width: float) -> jax.Array:
    """Return the eigenfunctions along each feature (feature, row, num_basis), 0 outside the box.

    φ of the box are their products: one for each choice of a function along every feature, the last feature's
    changing first.

    Arguments:
        x: inputs (row, feature).
        num_basis: basis functions along each feature.
        half_width: of the box in each feature, in its units.
    """
    along = jax.vmap(lambda values: eigenfunctions(values, half_width, num_basis), in_axes=1)(x)
    return jnp.where(jnp.abs(x.T)[..., None] <= half_width, along, 0).astype(x.dtype)


def contract(basis: jax.Array, weights: jax.Array) -> jax.Array:
    """Return Σ_j Π_d basis_d(row, j_d) weights_j (row, function), one feature after the other.

    No product of eigenfunctions is formed: it would have num_basis ^ features numbers for each row.

    Arguments:
        basis: as of `eigenbasis` (feature, row, num_basis).
        weights: (num_basis ^ features, function).
    """
    features, _, num_basis = basis.shape
    left = jnp.tensordot(basis[0], weights.reshape(*[num_basis] * features, -1), 1)
    for along in basis[1:]:
        left = jnp.einsum("ri,ri...->r...", along, left)
    return left


def root_spectral_density(kernel: str, frequency: jax.Array, lengthscale: jax.Array) -> jax.Array:
    """Return √S (frequency,) of a kernel of amplitude 1 in D features, ℓ and ω by feature.

    RBF: S = (2π)^(D/2) Π ℓ_d exp(−s/2) with s = Σ_d (ℓ_d ω_d)². Matérn:
    S = 2^D π^(D/2) Γ(ν + D/2) (2ν)^ν / Γ(ν) Π ℓ_d (2ν + s)^(−ν − D/2). Source: Rasmussen & Williams (2006), eq. 4.15.

    NumPyro's densities are not taken: they underflow to 0 at high frequencies, where √ has no gradient.

    Arguments:
        kernel: "rbf", "matern32" or "matern52".
        frequency: ω (frequency, feature), in radians per unit of the feature.
        lengthscale: ℓ (feature,).
    """
    half = frequency.shape[1] / 2
    s = ((lengthscale * frequency) ** 2).sum(1)
    if kernel == "rbf":
        log_density = half * math.log(2 * math.pi) - s / 2
    else:
        nu = SMOOTHNESS[kernel]
        constant = half * math.log(4 * math.pi) + math.lgamma(nu + half) - math.lgamma(nu) + nu * math.log(2 * nu)
        log_density = constant - (nu + half) * jnp.log(2 * nu + s)
    return jnp.exp((jnp.log(lengthscale).sum() + log_density) / 2)


def _check(kernel: str, num_basis: int, half_width: float, features: int) -> None:
    if kernel not in KERNELS or (kernel != "rbf" and kernel not in SMOOTHNESS):
        raise ValueError(
            f"hsgp got kernel {kernel!r}: give one of rbf, {', '.join(SMOOTHNESS)}"
            + (", or take gp, which has it" if kernel in KERNELS else "")
        )
    if num_basis < 1:
        raise ValueError(f"num_basis={num_basis}: give at least 1 basis function for each feature")
    if not (half_width > 0 and np.isfinite(half_width)):
        raise ValueError(f"half_width={half_width:g}: give a number above 0, in standard deviations of the inputs")
    number = num_basis**features
    if number > MOST_BASIS:
        most = int(MOST_BASIS ** (1 / features) + 1e-9)
        less = f"pass num_basis={most} or less, or " if features <= 3 else ""
        raise ValueError(
            f"hsgp got {features} features, for which {num_basis} basis functions along each make "
            f"{num_basis}^{features}, and it serves {MOST_BASIS:,}: {less}take sgp, whose cost does not grow with "
            "features, or gp"
        )
