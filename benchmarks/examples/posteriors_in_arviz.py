# %% [markdown]
# # Posteriors side by side in ArviZ
#
# `to_datatree` gives every fit as an ArviZ DataTree, whichever method made it. You will see why R-hat of a network's
# weights means little and what to ask in its place, what three methods say of the same predictions, and a comparison
# of two models by leave-one-out cross-validation, which says where it may be trusted.
#
# A minute and a half on two cores. Written for ArviZ 1.3, whose functions take DataTrees and return plot collections.

# %%
import os
from functools import partial

import arviz as az
import jax

from hmcvi import plots
from hmcvi.benchmarks.datasets import load
from hmcvi.inference import NUTS, SVI, BayesByBackprop, convergence, fit, predict_draws, to_datatree
from hmcvi.inference.loo import leave_one_out
from hmcvi.models import mlp

TINY = bool(os.environ.get("HMCVI_TINY"))  # settings for a test: the prose below holds for the others
jax.config.update("jax_num_cpu_devices", 4)  # one device a chain, so that the chains run side by side

# %%
data = load("diabetes", seed=0)
x, y = data.x_train, data.y_train
network = partial(mlp, widths=(4,), likelihood="normal")
nuts = NUTS(num_warmup=50, num_draws=50) if TINY else NUTS(num_warmup=1000, num_draws=1000)
few = {"num_steps": 500, "num_draws": 200} if TINY else {}
methods = (nuts, SVI(**few), BayesByBackprop(**few))
fits = {method.name: fit(jax.random.key(0), network, x, y, method) for method in methods}
trees = {name: to_datatree(result) for name, result in fits.items()}
for name, tree in trees.items():
    print(f"{name}: groups {', '.join(tree.children)}; draws are chains: {tree.attrs['draws_are_chains']}")

# %% [markdown]
# ## Weights
#
# Hidden units can change places, and a tanh unit can flip its signs on both sides, without any change in what the
# network computes. Chains that settle in different arrangements have a large R-hat, however well each of them predicts.

# %%
print(az.summary(trees["nuts"], var_names=["out.kernel", "noise_scale"], kind="all", round_to=3).to_string())

# %%
of_weights = plots.rank(trees["nuts"], sites=["out.kernel"], num_weights=4)

# %% [markdown]
# In every panel some chain has another distribution of ranks than the others: its line is a tenth or more from 0. The
# noise scale, which no rearrangement touches, has an R-hat near 1.
#
# ## Predictions
#
# What is asked of the posterior is what the network says. `predict_draws` gives each draw's mean and noise scale at
# rows (chain, draw, row, 2). As a group `posterior` of their own, all of ArviZ applies to them.

# %%
patients = [0, 1, 2, 3]
predictions = {
    name: az.from_dict(
        {"posterior": {"mean": predict_draws(result, data.x_test[patients])[..., 0]}},
        dims={"mean": ["patient"]},
        coords={"patient": patients},
    )
    for name, result in fits.items()
}
print(az.summary(predictions["nuts"], kind="all", round_to=3).to_string())
print(f"NUTS' verdict, over all test rows: {convergence(fits['nuts'], data.x_test, data.y_test).reason}")

# %%
of_predictions = plots.rank(predictions["nuts"], num_weights=4)

# %% [markdown]
# The same chains agree here. R-hat is near 1, effective sample sizes are in the thousands where those of the weights
# were in the tens, and the lines stay within some hundredths of 0: mind the axis. (ArviZ may mark a panel all the same:
# its test sees small differences in 4,000 draws.) That is why hmcvi's verdict on a sampler is about predictions.
#
# ## Three methods, the same predictions

# %%
side_by_side = plots.forest(predictions)

# %% [markdown]
# The centres are close; the intervals of both mean-field methods are narrower than those of NUTS.
#
# ## Leave-one-out, where k-hat allows it
#
# `leave_one_out` is ArviZ's PSIS-LOO with a count of the rows whose Pareto k-hat is too high. It may be trusted where
# these are at most 1 %. Mean-field draws seldom allow it: they lack the width that the posterior has without a row.

# %%
linear = fit(jax.random.key(1), partial(mlp, widths=(), likelihood="normal"), x, y, nuts)
left_out = {name: leave_one_out(result) for name, result in (fits | {"linear, nuts": linear}).items()}
for name, loo in left_out.items():
    said = f"elpd {loo.result.elpd:.1f} ±{loo.result.se:.1f} nats" if loo.allowed else "not to be trusted"
    print(f"{name}: {loo.num_bad} of {loo.num_rows} rows of too high k-hat, {said}")

# %%
allowed = {name: loo.result for name, loo in left_out.items() if loo.allowed}
if len(allowed) > 1:
    print(az.compare(allowed, round_to=2)[["elpd", "se", "elpd_diff", "dse", "weight"]].to_string())

# %% [markdown]
# The network is not better than the linear model: the difference is within its error `dse`. ArviZ's own figures take
# the same objects: here k-hat of every row under NUTS, none above 0.7.

# %%
khat = az.plot_khat(left_out["nuts"].result, backend="matplotlib")

# %%
for name, drawn in {"weights": of_weights, "predictions": of_predictions, "forest": side_by_side, "khat": khat}.items():
    plots.save(drawn, f"runs/examples/arviz-{name}")  # saving closes a figure, so it has a cell of its own
