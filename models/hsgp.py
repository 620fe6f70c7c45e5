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

__all__ = ["features_of", "hsgp", "root_spectral_density"]

MOST_BASIS = 4096
"""Basis functions at most: of a gradient over 10,000 rows they take 160 MB in float32."""

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

    f(x) = amplitude (Σ_j √S_ℓ(√λ_j) φ_j(x) z_j + r(x) z_0), z ~ Normal(0, I): φ_j and λ_j are the eigenfunctions and
    eigenvalues of the Laplacian on the box [−half_width, half_width] in each feature, and S_ℓ is the kernel's
    spectral density (Riutort-Mayol et al. 2023, eq. 14; Solin & Särkkä 2020). A gradient costs rows × basis functions,
    where `gp` costs rows³; rows are independent given z, so minibatches serve.

    r(x)² = 1 − Σ_j S_ℓ φ_j(x)² is what the basis leaves out of the prior's variance, which is then amplitude² at every
    x, as that of `gp`. It is nearly 0 where the approximation is good. Towards the edges of the box, where every φ_j
    vanishes, and beyond, it makes predictions return to the prior instead of to certainty.

    With lengthscale ℓ the approximation is close for half_width ≥ 3.2 ℓ beyond the rows' own spread and
    num_basis ≥ 1.75 half_width / ℓ (rbf), or 4.5 ℓ and 2.65 half_width / ℓ (matern52) (there, table 1): the defaults
    serve lengthscales from about 0.3 to 1 in standardised inputs.

    Sites: `lengthscale` (feature,), `amplitude` () and `noise_scale` () with the priors they have in `gp`, `latent`
    (1 + basis function, function) = z, and the observed `y` in the plate `data`. Inputs and regression targets are
    expected standardised.

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
        (20, 11, 1)
    """
    x = flatten(x)
    features = x.shape[1]
    _check(kernel, num_basis, half_width, features)
    functions = functions_of(output_width(likelihood, num_classes))
    lengthscale, amplitude, _ = hyperparameters(kernel, features, x.dtype)
    weighed = features_of(x, kernel, lengthscale, num_basis, half_width)
    zeros = jnp.zeros((weighed.shape[1], functions), x.dtype)
    latent = numpyro.sample("latent", dist.Normal(zeros, jnp.ones((), x.dtype)).to_event(2))
    outputs = amplitude * weighed @ latent
    if likelihood == "categorical":
        outputs = logits_of(outputs)
    return observe(outputs, y, likelihood=likelihood, num_rows=num_rows, num_classes=num_classes)


def features_of(x: jax.Array, kernel: str, lengthscale: jax.Array, num_basis: int, half_width: float) -> jax.Array:
    """Return Φ (row, 1 + basis function) with Φ Φᵀ ≈ k(x, x'), and exactly 1 on its diagonal; r(x) comes first.

    Arguments:
        x: inputs (row, feature).
        kernel: "rbf", "matern32" or "matern52".
        lengthscale: (feature,), in the units of the feature.
        num_basis: basis functions along each feature.
        half_width: of the box in each feature, in its units.
    """
    features = x.shape[1]
    sizes = [num_basis] * features
    frequency = sqrt_eigenvalues(half_width, sizes, features).T.astype(x.dtype)  # (basis function, feature)
    inside = (jnp.abs(x) <= half_width).all(1, keepdims=True)
    phi = jnp.where(inside, eigenfunctions(x, half_width, sizes), 0).astype(x.dtype)
    weighed = phi * root_spectral_density(kernel, frequency, lengthscale)
    # the floor, within rounding of 1, keeps the root's gradient finite
    remainder = jnp.sqrt(jnp.maximum(1 - (weighed**2).sum(1, keepdims=True), 8 * jnp.finfo(x.dtype).eps))
    return jnp.concatenate([remainder, weighed], axis=1)


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
