"""Fits as ArviZ DataTrees, on disk as netCDF, and back."""

from __future__ import annotations

import importlib.util
import io
import os
from pathlib import Path
from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .base import Fit, Method, Model, accepts
from .checks import check_data
from .describe import describe_method
from .durable import DamagedError, UnmarkedError, read_checked, write_checked
from .predict import check_labels, outcome_kind, predict_draws

__all__ = ["from_datatree", "load_datatree", "require_writer", "save_datatree", "to_datatree"]

GAUSSIAN_GROUPS = ("location", "scale")
"""Groups of a tree that hold a `Fit`'s fields of these names."""


def to_datatree(fit: Fit, x: Any = None, y: Any = None) -> xr.DataTree:
    """Return the fit as an ArviZ DataTree.

    Groups: `posterior` (every site), `sample_stats` (samplers), `posterior_predictive` (draws of y) and
    `log_likelihood` (chain, draw, row) at the rows given or else the training rows, `observed_data` (y there),
    `optimisation` (the loss trace of an optimisation, and the final mean loss of each start with its standard
    error), `variational` (the posterior's log density at each draw, in the unconstrained space), `location` and
    `scale` (mean and standard deviation of a Gaussian posterior by site, in the unconstrained space). The attributes
    hold the method, its hyperparameters, timings and gradient counts; `draws_are_chains` says whether R-hat and ESS
    apply.

    A model that conditions on its training rows (a Gaussian process) gets predictive groups only for rows given:
    its predictions of the rows it has seen are no likelihoods. Predictive groups that would take more than 256 MiB
    are left out, and the attribute `left_out` says so. The attribute `predictive_rows` says whether they are at the
    "training" rows, as `az.loo` wants, or at rows "given".

    Arguments:
        fit: the fit.
        x: inputs (row, feature...) for the predictive groups; the training inputs by default.
        y: targets (row,) of x.

    Raises:
        ValueError: x came without y, or either is malformed.
    """
    if (x is None) != (y is None):
        raise ValueError("to_datatree got one of x and y: give both, or neither for the training rows")
    groups: dict[str, dict[str, Any]] = {"posterior": {site: np.asarray(d) for site, d in fit.draws.items()}}
    left_out = ""
    if fit.stats:
        groups["sample_stats"] = {name: np.asarray(value) for name, value in fit.stats.items()}
    rows_x, rows_y = (fit.x, fit.y) if x is None else check_data(x, y)
    if x is None and accepts(fit.model, "x_new"):
        left_out = "predictions: the model conditions on its training rows, give to_datatree held-out rows"
    else:
        try:
            kind, outputs = outcome_kind(fit, rows_x), predict_draws(fit, rows_x)
        except ValueError as error:
            left_out = f"predictions: {error}"
        else:
            groups |= _predictive_groups(kind, outputs, np.asarray(rows_y), fit.key)
    attributes = _attributes(fit) | {"left_out": left_out, "predictive_rows": "training" if x is None else "given"}
    tree = az.from_dict(groups, attrs={"/": attributes}, dims={"y": ["row"]})
    if fit.losses is not None:
        optimised = {"loss": ("step", np.asarray(fit.losses))}
        if fit.restarts is not None and fit.restart_errors is not None:
            optimised["restart_loss"] = ("restart", np.asarray(fit.restarts))
            optimised["restart_error"] = ("restart", np.asarray(fit.restart_errors))
        tree["optimisation"] = xr.DataTree(xr.Dataset(optimised))
    if fit.log_q is not None:
        tree["variational"] = xr.DataTree(xr.Dataset({"log_q": (("chain", "draw"), np.asarray(fit.log_q))}))
    for group in GAUSSIAN_GROUPS:
        moments = getattr(fit, group)
        if moments is not None:
            tree[group] = xr.DataTree(xr.Dataset({site: _array(site, values) for site, values in moments.items()}))
    return tree


def from_datatree(tree: xr.DataTree, model: Model, x: Any, y: Any, method: Method) -> Fit:
    """Return the fit that `to_datatree` made this tree of; model, data and method are the caller's to know.

    Raises:
        ValueError: the tree was made by another method or with other hyperparameters.
    """
    attributes = tree.attrs
    wanted = describe_method(method)
    if attributes.get("method") != wanted:
        raise ValueError(f"the tree holds {attributes.get('method')} and {wanted} was asked for")
    x, y = check_data(x, y)
    posterior = tree["posterior"].dataset
    stats = tree["sample_stats"].dataset if "sample_stats" in tree.children else {}
    optimised = tree["optimisation"].dataset if "optimisation" in tree.children else {}
    none = "not applicable"  # also where a tree was written before there was such an attribute
    return Fit(
        model=model,
        method=method,
        x=x,
        y=y,
        key=jax.random.wrap_key_data(
            jnp.asarray(np.asarray(attributes["key"], np.uint32)), impl=str(attributes["key_impl"])
        ),
        draws={str(site): jnp.asarray(posterior[site].values) for site in posterior.data_vars},
        stats={str(name): stats[name].values for name in stats},
        location=_moments(tree, "location"),
        scale=_moments(tree, "scale"),
        chain_method=None if attributes["chain_method"] == "not applicable" else str(attributes["chain_method"]),
        losses=optimised["loss"].values if "loss" in optimised else None,
        restarts=optimised["restart_loss"].values if "restart_loss" in optimised else None,
        restart_errors=optimised["restart_error"].values if "restart_error" in optimised else None,
        log_q=jnp.asarray(tree["variational"]["log_q"].values) if "variational" in tree.children else None,
        gradient_snr=_number_or_none(attributes["gradient_snr"]),
        gradient_z=_number_or_none(attributes["gradient_z"]),
        num_optimised=None if (moved := attributes.get("num_optimised", none)) == none else int(moved),
        finished=None if attributes["finished"] == "not applicable" else attributes["finished"] == "yes",
        ended_in_warmup=None if (ended := attributes["ended_in_warmup"]) == "not applicable" else int(ended),
        failure=str(attributes["failure"]),
        num_gradients=int(attributes["num_gradients"]),
        rows_per_gradient=int(attributes["rows_per_gradient"]),
        compile_seconds=float(attributes["compile_seconds"]),
        run_seconds=float(attributes["run_seconds"]),
    )


def require_writer() -> None:
    """Raise ValueError where no netCDF writer is installed: better before sampling than after it."""
    if importlib.util.find_spec("h5netcdf") is None:
        raise ValueError("no netCDF writer is installed: pip install 'arviz[h5netcdf]'")


def save_datatree(tree: xr.DataTree, path: str | os.PathLike[str]) -> None:
    """Write the tree to a netCDF file that appears whole or not at all, with a SHA-256 of its bytes behind them.

    Raises:
        OSError: the file cannot be written; what was there is as it was.
    """
    # in memory first: a disk that is full ends the process where HDF5 meets it
    write_checked(Path(path), tree.to_netcdf(engine="h5netcdf"))


def load_datatree(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read a tree that `save_datatree` wrote into memory; the file is closed.

    Raises:
        ValueError: the file is missing, cannot be read, or is not what was written.
    """
    try:
        content = read_checked(Path(path))
    except UnmarkedError as error:
        raise ValueError(
            f"{path} cannot be read ({error}): it was cut short, or not written by save_datatree (a file of "
            "DataTree.to_netcdf is read by xarray.open_datatree)"
        ) from error
    except (OSError, DamagedError) as error:
        raise ValueError(f"{path} cannot be read ({error}): delete it and run again") from error
    with xr.open_datatree(io.BytesIO(content), engine="h5netcdf") as tree:
        # group by group: DataTree.load leaves out variables that are called as a group is, such as a site "scale"
        groups = {node.path: node.to_dataset(inherit=False).load() for node in tree.subtree}
    return xr.DataTree.from_dict(groups)


def _predictive_groups(kind: str, outputs: np.ndarray, y: np.ndarray, key: jax.Array) -> dict[str, dict[str, Any]]:
    """Draw y from each draw's outputs (chain, draw, row, output), and score the observed y under them."""
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    if kind == "class":
        labels = check_labels(y, outputs.shape[-1])
        cumulative = outputs.cumsum(-1)
        levels = random.uniform(size=(*outputs.shape[:3], 1)) * cumulative[..., -1:]
        drawn = (levels > cumulative).sum(-1).astype(labels.dtype)
        chosen = np.take_along_axis(outputs, np.broadcast_to(labels[:, None], (*outputs.shape[:3], 1)), -1)[..., 0]
        log_likelihood = np.log(np.maximum(chosen, np.finfo(outputs.dtype).tiny))
    else:
        loc, scale = outputs[..., 0], outputs[..., 1]
        drawn = random.normal(loc, scale).astype(outputs.dtype)
        log_likelihood = -0.5 * ((y - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    return {
        "posterior_predictive": {"y": drawn},
        "log_likelihood": {"y": log_likelihood},
        "observed_data": {"y": y},
    }


def _array(site: str, values: jax.Array) -> tuple[list[str], np.ndarray]:
    return [f"{site}_dim_{axis}" for axis in range(np.ndim(values))], np.asarray(values)


def _moments(tree: xr.DataTree, group: str) -> dict[str, jax.Array] | None:
    if group not in tree.children:
        return None
    moments = tree[group].dataset
    return {str(site): jnp.asarray(moments[site].values) for site in moments.data_vars}


def _attributes(fit: Fit) -> dict[str, Any]:
    return {
        "inference_library": "hmcvi",
        "method": describe_method(fit.method),
        "method_name": fit.method.name,
        "draws_are_chains": "yes" if fit.stats else "no: R-hat and ESS are not applicable to independent draws",
        "finished": "not applicable" if fit.finished is None else "yes" if fit.finished else "no",
        "ended_in_warmup": "not applicable" if fit.ended_in_warmup is None else fit.ended_in_warmup,
        "gradient_snr": np.nan if fit.gradient_snr is None else fit.gradient_snr,
        "gradient_z": np.nan if fit.gradient_z is None else fit.gradient_z,
        "num_optimised": "not applicable" if fit.num_optimised is None else fit.num_optimised,
        "failure": fit.failure,
        "num_gradients": fit.num_gradients,
        "rows_per_gradient": fit.rows_per_gradient,
        "compile_seconds": fit.compile_seconds,
        "run_seconds": fit.run_seconds,
        "chain_method": fit.chain_method or "not applicable",
        "key": np.asarray(jax.random.key_data(fit.key)),
        "key_impl": str(jax.random.key_impl(fit.key)),
    }


def _number_or_none(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
