# %% [markdown]
# # hmcvi's models in plain NumPyro
#
# `mlp`, `cnn` and `gp` are ordinary model functions. Here `mlp` is fitted by NumPyro's own `MCMC` and `SVI`, predicted
# by `Predictive` and scored by `log_likelihood`, on the table `wine`. At the end `hmcvi.inference.fit` samples the same
# function, and you will see that the two runs are as close to each other as chains of one run are.
#
# About a minute on two cores.

# %%
import os
from functools import partial

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.diagnostics import split_gelman_rubin
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, autoguide, log_likelihood

from hmcvi import inference, plots
from hmcvi.benchmarks.datasets import load
from hmcvi.inference import scores
from hmcvi.models import mlp

TINY = bool(os.environ.get("HMCVI_TINY"))  # settings for a test: the prose below holds for the others
numpyro.set_host_device_count(4)  # one device a chain, so that the chains run side by side

# %%
data = load("wine", seed=0)
x, y, x_test, y_test = data.x_train, data.y_train, data.x_test, data.y_test
model = partial(mlp, widths=(8,), num_classes=data.num_classes)
num_warmup, num_draws, num_steps = (50, 50, 500) if TINY else (500, 500, 10_000)

# %% [markdown]
# ## MCMC

# %%
mcmc = MCMC(NUTS(model), num_warmup=num_warmup, num_samples=num_draws, num_chains=4, progress_bar=False)
mcmc.run(jax.random.key(0), x, y)
samples = mcmc.get_samples()
print("MCMC:", {site: draws.shape for site, draws in samples.items()})

# %% [markdown]
# ## SVI
#
# The guide is NumPyro's own, too. (For minibatches, `mlp` takes `num_rows`, the number of rows in all.)

# %%
guide = autoguide.AutoNormal(model)
svi = SVI(model, guide, numpyro.optim.Adam(0.01), Trace_ELBO())
fitted = svi.run(jax.random.key(1), num_steps, x, y, progress_bar=False)
guide_samples = guide.sample_posterior(jax.random.key(2), fitted.params, sample_shape=(1000,))
print(f"SVI: negative ELBO {np.mean(fitted.losses[-num_steps // 10 :]):.1f} nats over the last tenth of the steps")

# %% [markdown]
# ## Predictions and scores
#
# `Predictive` draws labels: their shares estimate the predictive probabilities. `log_likelihood` gives the logarithm of
# each draw's probability of a label, without that noise; asked for every class, it gives the probabilities themselves.


# %%
def probabilities(draws):
    """Each draw's class probabilities (draw, row, class)."""
    labels = range(data.num_classes)
    return jnp.stack([jnp.exp(log_likelihood(model, draws, x_test, jnp.full(len(x_test), k))["y"]) for k in labels], -1)


drawn = Predictive(model, samples)(jax.random.key(3), x_test)["y"]
shares = np.asarray(jax.nn.one_hot(drawn, data.num_classes).mean(0))
by_draw = {"nuts": probabilities(samples), "svi": probabilities(guide_samples)}
print(f"shares of drawn labels and mean probabilities differ by {np.abs(shares - by_draw['nuts'].mean(0)).max():.3f}")
for name, of_draws in by_draw.items():
    nll = scores.negative_log_likelihood(of_draws.mean(0), y_test)
    print(f"{name}: nll {nll.value:.3f} ±{nll.standard_error:.3f} on {len(y_test)} test rows")

# %% [markdown]
# ## The same posterior by `fit`
#
# `fit` compiles NumPyro's NUTS kernel into a loop of its own, so that time and gradients can be counted. Its key is
# used differently, so the draws differ; the posterior does not. Weights could not show that, since hidden units change
# places between chains. Predictions do: the eight chains of both runs are judged as if they were chains of one, and the
# total variation between the runs is held against that between the halves of one run.

# %%
method = inference.NUTS(num_warmup=num_warmup, num_draws=num_draws, num_chains=4)
result = inference.fit(jax.random.key(4), model, x, y, method)
of_fit = inference.predict_draws(result, x_test)  # (chain, draw, row, class)
of_mcmc = np.asarray(by_draw["nuts"]).reshape(of_fit.shape)

right = np.arange(len(y_test)), y_test
log_p = [np.log(np.maximum(of[:, :, *right], 1e-30)) for of in (of_mcmc, of_fit)]
rhat = split_gelman_rubin(np.concatenate(log_p))
print(f"R-hat over all eight chains: {np.median(rhat):.3f} in the median row, {rhat.max():.3f} in the worst")

between = scores.total_variation(of_mcmc.mean((0, 1)), of_fit.mean((0, 1)))
halves = scores.total_variation(of_fit[:2].mean((0, 1)), of_fit[2:].mean((0, 1)))
to_svi = scores.total_variation(of_fit.mean((0, 1)), by_draw["svi"].mean(0))
print(
    f"total variation: {between.value:.4f} between MCMC and fit, {halves.value:.4f} between the halves of fit's chains"
)
print(f"and {to_svi.value:.4f} ±{to_svi.standard_error:.4f} between fit and SVI")

# %% [markdown]
# R-hat is 1 to within its noise, and the runs are as close to each other as one run's halves are. The mean-field
# posterior is several times as far away. In the figure: the probability of the true class, over draws, in the four test
# rows that `fit` is least sure of.

# %%
unsure = of_fit.mean((0, 1)).max(1).argsort()[:4]
by_run = {"nuts by MCMC": of_mcmc, "nuts by fit": of_fit, "svi": np.asarray(by_draw["svi"])[None]}
trees = {
    name: az.from_dict({"posterior": {"P(true class)": of[:, :, unsure, y_test[unsure]]}})
    for name, of in by_run.items()
}
collection = plots.forest(trees)

# %%
plots.save(collection, "runs/examples/plain-numpyro")  # saving closes a figure, so it has a cell of its own
