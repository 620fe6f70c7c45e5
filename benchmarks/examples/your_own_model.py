# %% [markdown]
# # A model of your own, under three back ends
#
# A regression whose noise depends on the input is written once, as a NumPyro model function, and fitted by NUTS, by
# SVI (AutoNormal) and by Bayes-by-Backprop. You will see the verdict on each fit, scores with their errors, what
# differs between the three posteriors, and their bands.
#
# A minute to two on two cores.

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd

from hmcvi import plots
from hmcvi.inference import NUTS, SVI, BayesByBackprop, completion, convergence, family_fit, fit, predict, scores
from hmcvi.models import Normal, dense

TINY = bool(os.environ.get("HMCVI_TINY"))  # settings for a test: the prose below holds for the others
jax.config.update("jax_num_cpu_devices", 4)  # one device a chain, so that the chains run side by side

# %% [markdown]
# ## The model
#
# `dense` draws the weights of a layer at the sites `<name>.kernel` and `<name>.bias` and applies them: to NUTS and SVI
# that is all. Bayes-by-Backprop draws the layer's output in its place, with other noise for every row. What hmcvi asks
# of the function: the arguments `x`, `y=None` and `num_rows=None`, weights outside the plate `data`, and an observed
# site `y`. With `subsample_size`, the plate scales the likelihood of a minibatch to that of all rows.


# %%
def noisy_curve(x, y=None, *, num_rows=None):
    """Mean and log noise scale by a network of one hidden layer and a linear path past it."""
    hidden = jnp.tanh(dense("hidden", x, 16))
    outputs = dense("out", hidden, 2, prior=Normal(1.0)) + dense("skip", x, 2, prior=Normal(1.0), use_bias=False)
    with numpyro.plate("data", num_rows or len(x), subsample_size=len(x)):
        return numpyro.sample("y", dist.Normal(outputs[:, 0], jnp.exp(outputs[:, 1])), obs=y)


# %% [markdown]
# ## Data whose truth is known
#
# The noise grows from left to right.


# %%
def true_mean(x):
    return np.sin(2 * x) + 0.3 * x


def true_noise(x):
    return 0.1 + 0.4 / (1 + np.exp(-2 * x))


generator = np.random.default_rng(0)
x, x_test = generator.uniform(-2, 2, (200, 1)), generator.uniform(-2, 2, (1000, 1))
y, y_test = (generator.normal(true_mean(inputs), true_noise(inputs))[:, 0] for inputs in (x, x_test))

# %% [markdown]
# ## Three fits
#
# The verdict on a sampler is about its predictions (`convergence`), that on an optimiser about its loss and its last
# gradients (`completion`). Whether a variational family can hold the posterior is another question (`family_fit`).

# %%
nuts = NUTS(num_warmup=50, num_draws=25) if TINY else NUTS()
few = {"num_steps": 500, "num_draws": 100} if TINY else {"num_steps": 80_000}
methods = (nuts, SVI(**few), BayesByBackprop(**few))
fits = {method.name: fit(jax.random.key(0), noisy_curve, x, y, method) for method in methods}
for name, result in fits.items():
    verdict, family = convergence(result, x_test, y_test) or completion(result), family_fit(result)
    print(f"{name}: {result.num_passes:,.0f} passes over the data in {result.run_seconds:.1f} s; {verdict.reason}")
    if family is not None:
        print(f"    does the family fit? {family.reason}")

# %% [markdown]
# ## Scores, each with its sampling error
#
# `predict` keeps the draws: `loc` and `scale` are (chain, draw, row). Scores take (draw, row).

# %%
predictions = {name: predict(result, x_test) for name, result in fits.items()}
draws = {name: (p.loc.reshape(-1, len(x_test)), p.scale.reshape(-1, len(x_test))) for name, p in predictions.items()}
table = {
    name: {
        "rmse": scores.rmse(loc, y_test),
        "log density": scores.log_likelihood(loc, scale, y_test),
        "crps": scores.crps(loc, scale, y_test),
        "coverage of 90 %": scores.coverage(loc, scale, y_test, level=0.9),
    }
    for name, (loc, scale) in draws.items()
}
print(pd.DataFrame(table).map(lambda score: f"{score.value:.3f} ±{score.standard_error:.3f}").to_string())

# %% [markdown]
# ## What differs
#
# NUTS is best in every row. All intervals cover more than 90 %, those of NUTS least.
#
# All methods see the same test rows, so their errors go up and down together: differences are judged row by row.

# %%
rows = {name: scores.row_log_likelihood(*of, y_test) for name, of in draws.items()}
for name in list(fits)[1:]:
    value, error = scores.paired_difference(rows[name], rows["nuts"])
    distance = scores.wasserstein2(*draws[name], *draws["nuts"])
    ratio = np.median(predictions[name].epistemic_sd / predictions["nuts"].epistemic_sd)
    print(
        f"{name}: log density {value:+.4f} ±{error:.4f} from nuts', Wasserstein-2 {distance.value:.3f} "
        f"±{distance.standard_error:.3f}, epistemic sd {ratio:.2f} of nuts'"
    )
for name, of_method in predictions.items():
    print(f"{name}: noise {np.mean(of_method.scale.mean((0, 1)) / true_noise(x_test[:, 0])):.2f} of the true")

# %% [markdown]
# The differences in log density are many times their errors. The two mean-field posteriors err in the same way: where
# there are data they are *wider* than NUTS', and take more of the data for noise. The verdicts say that optimising
# longer would change little, the k-hats that the family cannot hold the posterior.
#
# ## The bands

# %%
grid = np.linspace(-3, 3, 200)
bands = {}
for name, result in fits.items():
    there = predict(result, grid[:, None])
    bands[name] = plots.Band(grid, there.mean, there.epistemic_sd, there.total_sd)
axes = plots.predictive_bands(bands, x[:, 0], y, truth=(grid, true_mean(grid)))

# %% [markdown]
# Beyond the data it is the other way round: the epistemic band opens under NUTS and stays narrow under both others. No
# method knows that the true curve (dotted) turns there.

# %%
plots.save(axes, "runs/examples/your-own-model")  # saving closes a figure, so it has a cell of its own
