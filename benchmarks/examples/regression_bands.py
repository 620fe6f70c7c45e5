# %% [markdown]
# # Regression bands: what a method knows, and where it knows that it does not
#
# The data set `wave` is one curve, seen at two clusters of inputs with a gap between them. A Gaussian process and a
# Bayesian MLP are fitted to it, each by NUTS and by mean-field variational inference (`SVI` with AutoNormal). You will
# see four panels of bands, and how often 90 % intervals cover new observations: at the clusters, and in the gap.
#
# About two minutes on two cores; NUTS on the GP, whose every gradient factorises a matrix, is most of it.

# %%
import os
from functools import partial

import jax
import numpy as np
import pandas as pd

from hmcvi import plots
from hmcvi.benchmarks.datasets import load
from hmcvi.inference import NUTS, SVI, completion, convergence, fit, predict, scores
from hmcvi.models import gp, mlp

TINY = bool(os.environ.get("HMCVI_TINY"))  # settings for a test: the prose below holds for the others
jax.config.update("jax_num_cpu_devices", 4)  # one device a chain, so that the chains run side by side

# %% [markdown]
# `load` standardises columns and targets on the training rows. `target_scale`, `target_loc` and their like lead back to
# the data's own unit. The rows in the gap are "held out": never trained on, and no test rows either.

# %%
data = load("wave", seed=0)
_, low, high = data.gap
print(data.description)
print(f"{len(data.x_train)} training rows, {len(data.x_test)} test rows, {len(data.x_held_out)} in ({low}, {high})")

# %% [markdown]
# The same two calls serve all four: `fit` and `predict`. A GP's predictions depend on its training rows, which
# `predict` knows from the model's argument `x_new`.

# %%
models = {"gp": gp, "mlp": partial(mlp, widths=(16,), likelihood="normal")}
methods = {
    "nuts": NUTS(num_warmup=50, num_draws=25) if TINY else NUTS(num_warmup=300, num_draws=400),
    "svi": SVI(num_steps=500, num_draws=100) if TINY else SVI(num_steps=60_000),
}
fits = {}
for model_name, model in models.items():
    for name, method in methods.items():
        fits[f"{name}, {model_name}"] = fit(jax.random.key(0), model, data.x_train, data.y_train, method)
for label, result in fits.items():
    verdict = convergence(result, data.x_test, data.y_test) or completion(result)
    print(f"{label}: {result.run_seconds:.1f} s, {verdict.reason}")

# %% [markdown]
# ## The bands
#
# The darker band is epistemic (what more data would tell), the lighter one total (with the noise). Grey ground has no
# training points; the dotted line is the true curve.

# %%
x_low, x_high = -1.5, 1.5
x = np.linspace(x_low, x_high, 50 if TINY else 300)
x_standardised = ((x - data.feature_loc) / data.feature_scale)[:, None]
bands = {}
for label, result in fits.items():
    there = predict(result, x_standardised)
    bands[label] = plots.Band(
        x=x,
        mean=there.mean * data.target_scale + data.target_loc,
        epistemic_sd=there.epistemic_sd * data.target_scale,
        total_sd=there.total_sd * data.target_scale,
    )
x_train = data.x_train[:, 0] * data.feature_scale + data.feature_loc
y_train = data.y_train * data.target_scale + data.target_loc
axes = plots.predictive_bands(bands, x_train, y_train, truth=(x, np.cos(4 * x + 0.8)))

# %% [markdown]
# Between and beside the clusters the GP's bands open wide under both methods: it has three parameters, which leaves
# variational inference little to get wrong. The MLP's open under NUTS, less far. Under mean-field inference they hardly
# open, in the gap or beyond the data.

# %%
plots.save(axes, "runs/examples/regression-bands")  # saving closes a figure, so it has a cell of its own

# %% [markdown]
# ## Coverage, at the clusters and in the gap
#
# A calibrated method's 90 % intervals cover 90 % of new observations. Scores of a regression take arrays (draw, row),
# so the chains are put one after the other. Each score is a value and its standard error over rows.

# %%
table = []
for label, result in fits.items():
    for where, x_new, y_new in (("test", data.x_test, data.y_test), ("gap", data.x_held_out, data.y_held_out)):
        there = predict(result, x_new)
        loc, scale = there.loc.reshape(-1, len(x_new)), there.scale.reshape(-1, len(x_new))
        covered = scores.coverage(loc, scale, y_new, level=0.9)
        width = scores.interval_width(loc, scale, level=0.9).value * data.target_scale
        log_density, error = scores.log_likelihood(loc, scale, y_new)  # per standardised unit
        table.append((label, where, *covered, width, log_density - np.log(data.target_scale), error))
columns = ("fit", "rows", "coverage", "± coverage", "width", "log density", "± log density")
print(pd.DataFrame(table, columns=columns).round(3).to_string(index=False))

# %% [markdown]
# At the clusters all four cover about as much as they should, mean-field inference on the MLP rather too much. In the
# gap they part. The GP under NUTS comes nearest to 90 %. Under SVI its intervals are only a little narrower, but the
# truth runs along their edge, and the coverage drops by far more: a coverage alone does not measure a band. The MLP is
# too sure of itself there even under NUTS, which is the model's doing, as the chains have converged. Mean-field
# inference takes nearly half of that width away, and its log density is more than ten nats a row lower.
