# %% [markdown]
# # The comparison on digits, from Python
#
# What `hmcvi compare` does, as two calls: an `Experiment` says what to run, `compare` runs it, prints the scoreboard
# and returns the folder with the fits, tables and figures. You will see the scoreboard of NUTS, SVI and
# Bayes-by-Backprop on 8 × 8 images of digits, and what its tables say when pandas reads them.
#
# Two to three minutes on two cores; a second run in the same folder reads the finished fits and takes seconds.

# %%
import os

import jax
import pandas as pd

from hmcvi import plots
from hmcvi.benchmarks.compare import compare
from hmcvi.benchmarks.experiment import Experiment

TINY = bool(os.environ.get("HMCVI_TINY"))  # settings for a test: the prose below holds for the others
jax.config.update("jax_num_cpu_devices", 4)  # one device a chain, so that the chains run side by side

# %% [markdown]
# ## Run
#
# Every option of the command is a field of `Experiment`; hyperparameters go by group, as `key=value` texts. The
# defaults are those of the command: three methods, one seed, the digits 8 and 9 held out as foreign.

# %%
if TINY:
    small = {"model": ("widths=4",), "nuts": ("num_warmup=40", "num_draws=20")}
    experiment = Experiment(data="digits", rows=80, test_rows=80, quick=True, options=small)
else:
    experiment = Experiment(data="digits", model="mlp", methods=("nuts", "svi", "bbb"))
folder = compare(experiment)

# %% [markdown]
# ## What the scores say
#
# `table.csv` is tidy: a row for each seed, method, set of rows and score. `standard_error` is the test set's sampling
# error, `monte_carlo_error` that of having finitely many draws.

# %%
table = pd.read_csv(folder / "table.csv")
asked = ["accuracy", "nll", "ece", "confidence − accuracy", "entropy, epistemic"]
on_test = table.query("set == 'test' and score in @asked")
print(
    on_test.pivot(index="score", columns="method", values=["value", "standard_error"]).loc[asked].round(3).to_string()
)

# %% [markdown]
# The methods are right equally often: their accuracies differ by a row or so of 289. They are not equally good. NUTS
# has the lowest negative log-likelihood (nll, in nats a row), and mean-field inference the larger epistemic entropy.
# All three are underconfident (confidence below accuracy), NUTS least.
#
# Standard errors of single scores do not tell which method is better: all see the same test rows. `differences.csv`
# holds each pair's difference row by row, with a 95 % interval. A tie's interval holds 0.

# %%
differences = pd.read_csv(folder / "differences.csv")
print(differences.query("minus == 'nuts'").round(4).to_string(index=False))

# %% [markdown]
# In accuracy both are ties; in nll and Brier score neither is. NUTS' advantage of some hundredths of a nat is real, and
# it cost hundreds of times the passes over the data (`passes over the data` on the scoreboard).
#
# OOD detection is in the same table: AUROC of an uncertainty, foreign rows against test rows, 0.5 is chance.

# %%
foreign = table[table["score"] == "auroc, mutual information"]
print(foreign.pivot(index="set", columns="method", values="value").round(3).to_string())

# %% [markdown]
# The digits 8 and 9, which no method has seen, are the hardest of the four sets, and NUTS tells them best.
#
# ## A figure
#
# The run has drawn its own (`figures/` in its folder). Another one from the tables: the differences from NUTS with
# their intervals; a hollow mark is a tie.

# %%
groups = {
    score: {row.method: (row.value, row.low, row.high) for row in of_score.itertuples()}
    for score, of_score in differences.query("minus == 'nuts'").groupby("score")
}
ax = plots.score_differences(groups, xlabel="score minus that of NUTS (nll in nats a row)")

# %%
plots.save(ax, "runs/examples/compare-on-digits")  # saving closes a figure, so it has a cell of its own
print(f"the run's own figures: {', '.join(sorted(path.name for path in (folder / 'figures').glob('*.png')))}")
