"""`fit`: one call for every method."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from .base import Fit, FitError, Method, Model
from .checkpoint import Checkpoint
from .checks import check_data, check_rows
from .describe import describe
from .division import serves_mesh
from .identity import identity_of
from .mesh import shard_rows
from .processes import same_everywhere, together
from .progress import Progress
from .provenance import made_with, processor
from .request import check_request, typed_key
from .spread import Spread
from .threads import one_blas_thread

__all__ = ["fit"]

NO_BEGINNING = "Cannot find valid initial parameters"
"""What NumPyro says where it gives up."""


def fit(
    key: jax.Array,
    model: Model,
    x: Any,
    y: Any,
    method: Method,
    *,
    progress: Progress | bool | None = None,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
    mesh: Mesh | None = None,
    own_rows: bool = False,
) -> Fit:
    """Fit a NumPyro model function to data.

    Arguments:
        key: random key, of `jax.random.key` or the older `jax.random.PRNGKey`; the same key gives the same draws on
            the same machine and chain method.
        model: `model(x, y=None, *, num_rows=None, ...)`; see "Your own model" in the README.
        x: inputs (row, feature...), floating point. uint8 of three or more axes is taken for images, which stay as
            small as they are and reach the model as x / 255, minibatch by minibatch.
        y: labels (integers) or targets (floating point) (row,).
        method: `NUTS(...)`, `HMC(...)`, `MCLMC(...)`, `MAMS(...)`, `SVI(...)`, `Laplace(...)`, `BayesByBackprop(...)`,
            `MAP(...)` or `Ensemble(...)`.
        progress: whether to show on standard error how far the fit is: a live bar where that is a terminal, else plain
            lines; by default the bar alone. A `Progress` of one's own says where and under which label.
        checkpoint: a file that the fit is kept in while it runs, every half a minute (a `Checkpoint` says how often):
            the same call goes on from it, to the same draws. It stays there: delete it once the result is saved.
        mesh: devices to fit on, of one process or of several, as `fit_mesh` lays them out: chains are divided over its
            axis "chain" and rows over "row". Every process makes the same call; draws are whole in each of them.
        own_rows: with a mesh, whether x and y are this process's own rows alone, and not all of them.

    Returns:
        The draws and all that `predict` and `to_datatree` need.

    Raises:
        TypeError: key, model or method are of another kind.
        ValueError: the data are malformed or do not fit the model, or the memory would not hold the fit.
        CheckpointError: the checkpoint is of another fit, or damaged; a ValueError.
        FitError: the fit did not stay finite; its `fit` holds the last finite state.
        KeyboardInterrupt: the fit was interrupted; with a checkpoint, its message says where the fit is kept.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functools import partial
        >>> from hmcvi.inference import SVI, fit, predict
        >>> from hmcvi.models import mlp
        >>> x = jnp.linspace(-1, 1, 40)[:, None]
        >>> model = partial(mlp, num_classes=2)
        >>> result = fit(jax.random.key(0), model, x, (x[:, 0] > 0).astype(int), SVI(num_steps=200))
        >>> predict(result, x).probs.shape
        (40, 2)
    """
    spread = None
    key = typed_key(key)
    if mesh is None:
        x, y = check_data(x, y)
        check_request(key, model, x, y, method)
    else:
        spread, x, y = _spread(key, model, x, y, method, mesh, own_rows)
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = Checkpoint(checkpoint)
    checkpoint.begin(lambda: identity_of(key, model, x, y, method, spread), joint=spread is not None)
    started = time.perf_counter() - checkpoint.elapsed
    if not isinstance(progress, Progress):
        progress = Progress(method.name, Progress.suited(progress))
    try:
        with progress as bar, checkpoint, one_blas_thread():
            if spread is None:
                result = method.fit(key, model, x, y, bar, checkpoint)
            else:
                over_mesh: Any = method.fit
                result = over_mesh(key, spread.marked(model), x, y, bar, checkpoint, spread)
                x_own, y_own = spread.mine  # on the host: a device holds its part alone
                # the rows of this process, and how many there are in all
                num_rows = spread.num_rows if own_rows else None
                result = dataclasses.replace(result, model=model, x=x_own, y=y_own, num_rows=num_rows)
    except RuntimeError as error:
        if NO_BEGINNING not in str(error):
            raise
        raise FitError(
            f"no draw of the prior has a finite log joint, so {method.name} has nowhere to begin: give a narrower "
            "prior, or scale x and y"
        ) from error
    result = dataclasses.replace(result, compile_seconds=time.perf_counter() - started - result.run_seconds)
    if result.failure:
        checkpoint.remove()  # going on from it would fail again
        raise FitError(result.failure, result if result.losses is not None and len(result.losses) else None)
    return result


def _spread(
    key: jax.Array, model: Model, x: Any, y: Any, method: Method, mesh: Mesh, own_rows: bool
) -> tuple[Spread, Any, Any]:
    """Return the rows on the mesh, and those (x, y) that the model is looked at with, once every process agrees."""

    def checked() -> tuple[Any, Any]:
        rows: tuple[Any, Any] = check_rows(x, y)
        check_request(key, model, *rows, method)
        if not serves_mesh(method):
            raise ValueError(f"{method.name} cannot be fitted over a mesh: leave mesh=None, or give another method")
        return rows

    own = together(checked)
    here = [describe(method), describe(model), np.asarray(jax.random.key_data(key)).tolist(), made_with(), processor()]
    same_everywhere("the request, the versions or the processor", json.dumps(here))
    spread = shard_rows(mesh, *own, own_rows=own_rows)
    return spread, *spread.head
