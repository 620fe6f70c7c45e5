"""What a saved fit remembers: the description of its method, and the Gaussian of every site."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

from hmcvi.inference import (
    MAP,
    NUTS,
    SVI,
    BayesByBackprop,
    Ensemble,
    FanIn,
    Fit,
    from_datatree,
    load_datatree,
    save_datatree,
    to_datatree,
)
from hmcvi.inference.describe import describe, describe_method

X, Y = np.arange(12, dtype=np.float32).reshape(4, 3) / 12, np.arange(4, dtype=np.float32)


def linear(x, y=None):
    """The sites `w` (3,) and `w_0` (2,): the second has the name that an axis of the first might have."""
    w = numpyro.sample("w", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
    other = numpyro.sample("w_0", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    with numpyro.plate("data", len(x)):
        return numpyro.sample("y", dist.Normal(x @ w + other.sum(), 1.0), obs=y)


def made(method, seed=0):
    """A fit made without fitting."""
    random = np.random.default_rng(seed)
    location = {"w": jnp.asarray(random.normal(size=3)), "w_0": jnp.asarray(random.normal(size=2))}
    draws = {site: jnp.stack([mean, mean + 1])[None] for site, mean in location.items()}
    return Fit(
        linear, method, jnp.asarray(X), jnp.asarray(Y), jax.random.key(seed), draws, 7, 4, 0.5,
        compile_seconds=0.5, location=location, scale=location, losses=np.ones(2), finished=False,
    )  # fmt: skip


# Made anew on each call, as a script does when it is run again to read what it saved.
METHODS = {
    "default": lambda: MAP(),
    "rate": lambda: MAP(learning_rate=0.02),
    "cosine": lambda: MAP(schedule="cosine"),
    "constant 0.1": lambda: MAP(learning_rate=optax.constant_schedule(0.1)),
    "constant 0.2": lambda: MAP(learning_rate=optax.constant_schedule(0.2)),
    "decay": lambda: MAP(learning_rate=optax.exponential_decay(0.1, 100, 0.5, end_value=0.01)),
    "slower decay": lambda: MAP(learning_rate=optax.exponential_decay(0.1, 200, 0.5, end_value=0.01)),
    "decay to less": lambda: MAP(learning_rate=optax.exponential_decay(0.1, 100, 0.4, end_value=0.01)),
    "cosine decay": lambda: MAP(learning_rate=optax.cosine_decay_schedule(0.1, 100)),
    "linear": lambda: MAP(learning_rate=optax.linear_schedule(0.1, 0.0, 100)),
    "linear to 0.01": lambda: MAP(learning_rate=optax.linear_schedule(0.1, 0.01, 100)),
    "piecewise": lambda: MAP(learning_rate=optax.piecewise_constant_schedule(0.1, {10: 0.5})),
    "piecewise later": lambda: MAP(learning_rate=optax.piecewise_constant_schedule(0.1, {20: 0.5})),
    "lambda": lambda: MAP(learning_rate=lambda step: 0.1 / (step + 1)),
    "lambda of less": lambda: MAP(learning_rate=lambda step: 0.2 / (step + 1)),
    "lambda of a default": lambda: MAP(learning_rate=lambda step, rate=0.1: rate),
    "lambda of a smaller default": lambda: MAP(learning_rate=lambda step, rate=0.05: rate),
    "lambda of a named default": lambda: MAP(learning_rate=lambda step, *, rate=0.1: rate),
    "lambda in a lambda": lambda: MAP(learning_rate=lambda step: (lambda: 0.1)()),
    "another lambda in a lambda": lambda: MAP(learning_rate=lambda step: (lambda: 0.2)()),
    "sgd": lambda: MAP(optimizer=optax.sgd),
    "momentum": lambda: MAP(optimizer=partial(optax.sgd, momentum=0.9)),
    "less momentum": lambda: MAP(optimizer=partial(optax.sgd, momentum=0.5)),
    "nesterov": lambda: MAP(optimizer=partial(optax.sgd, momentum=0.9, nesterov=True)),
    "adamw": lambda: MAP(optimizer=partial(optax.adamw, weight_decay=1e-2)),
    "clipped": lambda: MAP(clip_norm=1.0),
    "fan-in": lambda: MAP(start=FanIn()),
    "small fan-in": lambda: MAP(start=FanIn(0.1)),
    "started": lambda: MAP(start=MAP(num_steps=10)),
    "started longer": lambda: MAP(start=MAP(num_steps=20)),
    "started by svi": lambda: MAP(start=SVI(num_steps=10)),
    "start of a start": lambda: MAP(start=MAP(num_steps=10, start=FanIn(0.1))),
    "start of another start": lambda: MAP(start=MAP(num_steps=10, start=FanIn(0.2))),
    "start by momentum": lambda: MAP(start=MAP(num_steps=10, optimizer=partial(optax.sgd, momentum=0.9))),
    "from a fit": lambda: MAP(start=made(MAP())),
    "from a fit of another key": lambda: MAP(start=made(MAP(), seed=1)),
    "from a fit by another method": lambda: MAP(start=made(SVI())),
    "ensemble": lambda: Ensemble(),
    "larger ensemble": lambda: Ensemble(size=6),
    "bbb": lambda: BayesByBackprop(),
    "bbb blundell": lambda: BayesByBackprop(kl_weighting="blundell"),
    "bbb cold": lambda: BayesByBackprop(temperature=0.5),
    "nuts": lambda: NUTS(),
}


def test_no_two_methods_share_a_description():
    described = {name: describe_method(make()) for name, make in METHODS.items()}
    for (one, first), (other, second) in itertools.combinations(described.items(), 2):
        assert first != second, (one, other)


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_a_method_made_anew_has_the_same_description_in_plain_json(make):
    description = describe_method(make())
    assert describe_method(make()) == description
    # Nothing in it is the address of an object, which another process would not find again.
    assert " at 0x" not in description
    assert json.loads(description)["class"] == type(make()).__name__


def test_a_description_spells_out_what_a_function_holds_on_to():
    assert describe(partial(optax.sgd, momentum=0.9, nesterov=True)) == ["sgd", {"momentum": 0.9}, {"nesterov": True}]
    assert describe(partial(optax.sgd, nesterov=True, momentum=0.9)) == ["sgd", {"momentum": 0.9}, {"nesterov": True}]
    assert describe(partial(partial(optax.sgd, 0.1), momentum=0.9)) == ["sgd", 0.1, {"momentum": 0.9}]
    name, value = describe(optax.constant_schedule(0.1))
    assert name.startswith("constant_schedule.<locals>.<lambda>")
    assert value == 0.1
    assert describe(FanIn(0.1)) == {"class": "FanIn", "gain": 0.1}
    plain = describe(BayesByBackprop(start=MAP(num_steps=10, start=FanIn())))
    assert plain["start"]["num_steps"] == 10
    assert plain["start"]["start"] == {"class": "FanIn", "gain": 1.0}


SCHEDULES = {
    "joined": partial(optax.warmup_cosine_decay_schedule, 0.0, 0.1, 10, 100),
    "cosine": partial(optax.cosine_decay_schedule, 0.1, 100),
    "exponential": partial(optax.exponential_decay, 0.1, 100, 0.5),
    "exponential to an end": partial(optax.exponential_decay, 0.1, 100, 0.5, end_value=0.01),
    "linear": partial(optax.linear_schedule, 0.1, 0.0, 100),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_that_was_followed_is_known_again_when_it_is_made_anew(name):
    method = SVI(learning_rate=SCHEDULES[name]())
    method.learning_rate(jnp.asarray(3))  # as the fit does
    tree = to_datatree(made(method))
    anew = SVI(learning_rate=SCHEDULES[name]())
    np.testing.assert_array_equal(from_datatree(tree, linear, X, Y, anew).draws["w"], made(method).draws["w"])


def test_a_tree_of_another_schedule_optimiser_or_start_is_refused():
    whole = SVI(
        learning_rate=optax.linear_schedule(0.1, 0.0, 100),
        optimizer=partial(optax.sgd, momentum=0.9),
        start=MAP(num_steps=10, start=FanIn(0.1)),
    )
    tree = to_datatree(made(whole))
    assert from_datatree(tree, linear, X, Y, dataclasses.replace(whole)).method == whole
    for change in (
        {"learning_rate": optax.linear_schedule(0.2, 0.0, 100)},
        {"optimizer": partial(optax.sgd, momentum=0.8)},
        {"start": MAP(num_steps=10, start=FanIn(0.2))},
        {"start": FanIn(0.1)},
    ):
        with pytest.raises(ValueError, match=r"the tree holds .* was asked for"):
            from_datatree(tree, linear, X, Y, dataclasses.replace(whole, **change))


def test_the_gaussian_of_every_site_survives_the_disk_whatever_its_name(tmp_path):
    result = made(SVI())
    save_datatree(to_datatree(result), tmp_path / "fit.nc")
    back = from_datatree(load_datatree(tmp_path / "fit.nc"), linear, X, Y, SVI())
    for field in ("draws", "location", "scale"):
        assert set(getattr(back, field)) == {"w", "w_0"}, field
        for site, values in getattr(result, field).items():
            np.testing.assert_array_equal(getattr(back, field)[site], values)


def test_sites_that_are_called_as_groups_are_survive_the_disk(tmp_path):
    """`DataTree.load` leaves them in a file that is closed."""

    def model(x, y=None):
        w = numpyro.sample("scale", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
        other = numpyro.sample("posterior", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        with numpyro.plate("data", len(x)):
            return numpyro.sample("y", dist.Normal(x @ w + other.sum(), 1.0), obs=y)

    def renamed(values):
        return {"scale": values["w"], "posterior": values["w_0"]}

    plain = made(SVI())
    moments = {"location": renamed(plain.location), "scale": renamed(plain.scale)}
    result = dataclasses.replace(plain, model=model, draws=renamed(plain.draws), **moments)
    save_datatree(to_datatree(result), tmp_path / "fit.nc")
    back = from_datatree(load_datatree(tmp_path / "fit.nc"), model, X, Y, SVI())
    for field in ("draws", "location", "scale"):
        assert set(getattr(back, field)) == {"scale", "posterior"}, field
        for site, values in getattr(result, field).items():
            np.testing.assert_array_equal(getattr(back, field)[site], values)


ELSEWHERE = """
from hmcvi.inference import MAP
from hmcvi.inference.describe import describe_method
print(describe_method(MAP(learning_rate=lambda step: (lambda s: 0.1 if s in {"a", "b", "c", "d"} else 0.2)(step))))
"""


def test_a_description_is_the_same_in_every_process():
    """Neither addresses of functions nor the order of a set's members, which the hash seed decides, are in it."""
    said = {
        subprocess.run(
            [sys.executable, "-c", ELSEWHERE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1


def test_local_functions_of_one_name_are_told_apart_by_what_they_do():
    def tenth():
        def rate(step):
            return 0.1

        return rate

    def fifth():
        def rate(step):
            return 0.2

        return rate

    one, other = tenth(), fifth()
    other.__qualname__ = one.__qualname__
    assert describe_method(MAP(learning_rate=one)) != describe_method(MAP(learning_rate=other))
    assert describe_method(MAP(learning_rate=one)) == describe_method(MAP(learning_rate=tenth()))
