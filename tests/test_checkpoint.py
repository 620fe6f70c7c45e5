"""An interrupted fit goes on to the same bytes; a file that is not its own, or damaged, is never gone on from."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from hmcvi.inference import (
    MAMS,
    MAP,
    MCLMC,
    NUTS,
    SVI,
    BayesByBackprop,
    Checkpoint,
    CheckpointError,
    Ensemble,
    Fit,
    FitError,
    fit,
    identity,
)
from hmcvi.inference import checkpoint as checkpoint_module
from hmcvi.inference.checkpoint import Kept
from hmcvi.inference.describe import describe
from hmcvi.models import mlp

X = np.random.default_rng(0).normal(size=(150, 2)).astype(np.float32)
Y = (X.sum(1) > 0).astype(int)
MODEL = partial(mlp, widths=(3,), num_classes=2)
KEY = jax.random.key(3)

METHODS = {
    "nuts": NUTS(num_warmup=30, num_draws=30, num_chains=2),
    "nuts, in lock step": NUTS(num_warmup=30, num_draws=30, num_chains=2, chain_method="vectorized"),
    "nuts, to a budget": NUTS(num_warmup=20, num_draws=400, num_chains=2, max_passes=4_000),
    "mclmc": MCLMC(num_warmup=50, num_draws=40, num_chains=2, thinning=3),
    "mams": MAMS(num_warmup=50, num_draws=40, num_chains=2),
    "svi": SVI(num_steps=400, num_draws=20, batch_size=32),
    "svi, to a plateau": SVI(num_steps=8_000, num_draws=20, learning_rate=0.1),
    "bbb from map": BayesByBackprop(num_steps=400, num_draws=20, start=MAP(num_steps=300)),
    "map, restarted": MAP(num_steps=300, num_restarts=2),
    "ensemble": Ensemble(size=2, num_steps=300),
}


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Ctrl-C is heeded, here and in the processes begun here, also where this one was begun with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Killed(Exception):
    """What stands for a process that is gone."""


class Dying(Checkpoint):
    """A checkpoint in whose process the power fails after so many compiled calls."""

    lives = 0

    def part(self, name: str) -> Checkpoint:
        inner = super().part(name)
        inner.__class__, inner.outer = Dying, getattr(self, "outer", self)  # type: ignore[attr-defined]
        return inner

    def offer(self, stage: str, make: Any) -> float:
        cost = super().offer(stage, make)
        outer = getattr(self, "outer", self)
        outer.lives -= 1
        if outer.lives == 0:
            raise Killed
        return cost


def killed_after(calls: int, path: Path, method: Any, **options: Any) -> None:
    dying = Dying(path, every=0)
    dying.lives = calls
    with pytest.raises(Killed):
        fit(KEY, MODEL, X, Y, method, checkpoint=dying, **options)


def bytes_of(result: Fit) -> dict[str, Any]:
    """All that a fit says but its times, as bytes."""
    times = ("run_seconds", "compile_seconds", "model", "method", "key")
    said = {field.name: getattr(result, field.name) for field in dataclasses.fields(result) if field.name not in times}
    return {
        f"{name}{jax.tree_util.keystr(path)}": np.asarray(leaf).tobytes() if hasattr(leaf, "shape") else leaf
        for name, value in said.items()
        for path, leaf in jax.tree_util.tree_leaves_with_path(dict(value) if name in ("draws", "stats") else value)
    }


@pytest.mark.parametrize("name", METHODS)
def test_a_killed_fit_ends_in_the_same_bytes(name: str, tmp_path: Path) -> None:
    method, path = METHODS[name], tmp_path / "fit"
    whole = fit(KEY, MODEL, X, Y, method)
    for calls in (2, 3):  # of which the second begins where the first died
        killed_after(calls, path, method)
    resumed = fit(KEY, MODEL, X, Y, method, checkpoint=path)
    assert bytes_of(resumed) == bytes_of(whole)
    assert resumed.compile_seconds > 0
    assert path.exists()


def test_where_a_budget_of_gradients_ends_does_not_depend_on_how_the_calls_are_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = METHODS["nuts, to a budget"]
    whole = fit(KEY, MODEL, X, Y, method)
    monkeypatch.setattr("hmcvi.inference.chains.next_length", lambda length, seconds, most: 1)
    one_by_one = fit(KEY, MODEL, X, Y, method)
    assert whole.num_draws < method.num_draws
    assert bytes_of(one_by_one) == bytes_of(whole)


@pytest.mark.parametrize("name", ["map, restarted", "nuts"])
def test_a_finished_fit_is_returned_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, path = METHODS[name], tmp_path / "fit"
    first = fit(KEY, MODEL, X, Y, method, checkpoint=path)
    monkeypatch.setattr("hmcvi.inference.optimise.Descent.run", None)  # no step, no draw is made again
    monkeypatch.setattr("hmcvi.inference.chains.Sampler._detail", None)
    assert bytes_of(fit(KEY, MODEL, X, Y, method, checkpoint=path)) == bytes_of(first)
    Checkpoint(path).remove()
    assert list(tmp_path.iterdir()) == []


OTHERS: dict[str, dict[str, Any]] = {
    "method.num_steps": {"method": MAP(num_steps=301)},
    "method.class": {"method": SVI(num_steps=300, num_draws=2)},
    "model.function": {"model": partial(mlp, widths=(4,), num_classes=2)},
    "data.x": {"x": X + 1},
    "data.y": {"y": 1 - Y},
    "key": {"key": jax.random.key(4)},
    "versions.numpyro": {"version": ("numpyro", "0.0")},
}


@pytest.mark.parametrize("field", OTHERS)
def test_a_checkpoint_of_another_fit_is_refused_and_kept(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, method = tmp_path / "fit", MAP(num_steps=300)
    killed_after(2, path, method)
    before = path.read_bytes()
    asked = {"key": KEY, "model": MODEL, "x": X, "y": Y, "method": method, **OTHERS[field]}
    package, version = asked.pop("version", (None, None))
    if package is not None:
        made = identity.made_with()
        made["versions"] = {**made["versions"], package: version}
        monkeypatch.setattr(identity, "made_with", lambda: made)
    with pytest.raises(CheckpointError, match=f"is of another fit: its {field} is "):
        fit(**asked, checkpoint=path)
    assert path.read_bytes() == before


def test_the_same_model_has_the_same_program_in_another_process(tmp_path: Path) -> None:
    code = (
        "import jax, numpy as np\nfrom functools import partial\nfrom hmcvi.inference.identity import _program\n"
        "from hmcvi.models import cnn, gp, mlp\n"
        "x = jax.numpy.asarray(np.arange(128.0).reshape(2, 8, 8, 1) / 128); y = jax.numpy.asarray([0, 1])\n"
        "print(_program(partial(cnn, channels=(2,), widths=(3,), num_classes=2), x, y))\n"
        "print(_program(partial(mlp, num_classes=2), x, y))\n"
        "print(_program(partial(gp, num_classes=2), x.reshape(2, -1), y))\n"
    )
    said = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    }
    assert len(said) == 1
    assert len(set(said.pop().split())) == 3


GAIN = 1.0


def steep(x: Any, y: Any = None, *, num_rows: int | None = None) -> Any:
    return mlp(GAIN * x, y, num_rows=num_rows, widths=(3,), num_classes=2)


def test_a_model_whose_helpers_changed_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, method = tmp_path / "fit", MAP(num_steps=300)
    fit(KEY, steep, X, Y, method, checkpoint=Checkpoint(path, every=0))
    monkeypatch.setitem(globals(), "GAIN", 2.0)
    with pytest.raises(CheckpointError, match=r"its model\.program is"):
        fit(KEY, steep, X, Y, method, checkpoint=path)


def test_counts_of_numpy_and_keys_of_another_kind_are_kept_too(tmp_path: Path) -> None:
    key, path = jax.random.key(0, impl="rbg"), tmp_path / "fit"
    method = NUTS(num_warmup=np.int64(20), num_draws=np.int64(20), num_chains=2)
    first = fit(key, MODEL, X, Y, method, checkpoint=Checkpoint(path, every=0))
    plain = NUTS(num_warmup=20, num_draws=20, num_chains=2)
    assert bytes_of(fit(key, MODEL, X, Y, plain, checkpoint=path)) == bytes_of(first)
    with pytest.raises(CheckpointError, match="its key is"):
        fit(jax.random.key(0, impl="unsafe_rbg"), MODEL, X, Y, plain, checkpoint=path)


def noisy_line(x: Any, y: Any = None, *, num_rows: int | None = None, prior: Any = None, factor: Any = None) -> None:
    weights = numpyro.sample("w", prior.expand([x.shape[1]]).to_event(1))
    with numpyro.plate("data", num_rows or len(x), subsample_size=len(x)):
        numpyro.sample("y", dist.Normal(x @ factor(weights), 1.0), obs=y)


def identities() -> list[str]:
    """Of models that differ in a prior, and in what a compiled helper holds on to."""
    factors = [jax.jit(lambda w, c=c: w * c) for c in (jnp.ones(2), jnp.zeros(2))]
    models = [
        partial(noisy_line, prior=dist.Normal(0.0, scale), factor=factor) for scale in (1.0, 2.0) for factor in factors
    ]
    x = jnp.ones((3, 2))
    found = [identity.identity_of(KEY, model, x, jnp.ones(3), MAP(num_steps=300)) for model in models]
    return [json.dumps(one, sort_keys=True) for one in found]


def test_an_identity_tells_models_apart_and_is_the_same_in_every_process() -> None:
    code = "import tests.test_checkpoint as t; print(*t.identities(), sep='\\n')"  # not as pytest rewrites it
    command, root = [sys.executable, "-c", code], Path(__file__).parents[1]
    first, second = (subprocess.run(command, cwd=root, capture_output=True, text=True, check=True) for _ in "ab")
    assert len(set(first.stdout.splitlines())) == 4
    assert first.stdout == second.stdout


def slow(step: Any) -> Any:
    return 1e-3


def fast(step: Any) -> Any:
    return 1e-2


def test_a_schedule_that_was_edited_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    before = describe(MAP(num_steps=300, learning_rate=slow))
    monkeypatch.setattr(slow, "__code__", fast.__code__)
    assert describe(MAP(num_steps=300, learning_rate=slow)) != before


def test_another_fit_to_start_from_is_another_start() -> None:
    starts = [fit(KEY, MODEL, x, Y, MAP(num_steps=300)) for x in (X, X + 1)]
    first, second = (describe(SVI(num_steps=300, start=start)) for start in starts)
    assert first != second


def kept(step: int) -> Kept:
    return Kept.of({"step": step}, state={"a": jnp.arange(40.0) + step, "key": jax.random.key(step)})


def write(path: Path, *steps: int) -> None:
    """Leave the file of the last step, and before it that of the step before."""
    checkpoint = Checkpoint(path, every=0)
    checkpoint.begin(dict)
    for step in steps:
        checkpoint.offer("steps", partial(kept, step))


def read(path: Path) -> tuple[int, list[str]]:
    """The step that a fit would go on from, after the tree is rebuilt, and what was said."""
    said: list[str] = []
    checkpoint = Checkpoint(path, say=said.append)
    checkpoint.begin(dict)
    found = checkpoint.saved("steps")
    assert found is not None
    step = found.values["step"]
    state = found.tree("state", {"a": jnp.zeros(40), "key": jax.random.key(0)})
    assert np.array_equal(state["a"], np.arange(40.0) + step)
    assert np.array_equal(jax.random.key_data(state["key"]), jax.random.key_data(jax.random.key(step)))
    return step, said


def damages(whole: bytes) -> list[bytes]:
    """Cut short at 20 places, and with 50 bits flipped one by one."""
    random = np.random.default_rng(0)
    cut = [whole[: int(place)] for place in np.linspace(0, len(whole) - 1, 20)]
    flipped = []
    for place, bit in zip(random.integers(0, len(whole), 50), random.integers(0, 8, 50), strict=True):
        content = bytearray(whole)
        content[place] ^= 1 << int(bit)
        flipped.append(bytes(content))
    return cut + flipped


def test_of_a_damaged_checkpoint_the_one_before_takes_the_place(tmp_path: Path) -> None:
    path = tmp_path / "fit"
    write(path, 1, 2)
    assert read(path) == (2, [])
    for content in damages(path.read_bytes()):
        path.write_bytes(content)
        step, said = read(path)
        assert step == 1
        assert "fit is damaged" in said[0]
        assert str(path) in said[0]


def test_a_damaged_checkpoint_does_not_take_the_place_of_the_sound_one(tmp_path: Path) -> None:
    path = tmp_path / "fit"
    write(path, 1, 2)
    path.write_bytes(b"damaged")
    checkpoint = Checkpoint(path, every=0, say=lambda sentence: None)
    checkpoint.begin(dict)
    checkpoint.offer("steps", partial(kept, 3))
    assert read(path) == (3, [])
    path.write_bytes(b"damaged")
    assert read(path)[0] == 1


def test_where_both_are_damaged_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fit"
    write(path, 1)
    for content in damages(path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"^damaged, or no checkpoint: .*fit \(.*\); delete what is named"):
            read(path)


def test_a_sound_file_of_another_format_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        before.setattr(checkpoint_module, "FORMAT", "hmcvi checkpoint 1")
        write(tmp_path / "fit", 1)
    content = (tmp_path / "fit").read_bytes()
    wanted = r"fit is of another version: 'hmcvi checkpoint 1', and 'hmcvi checkpoint 2' is wanted; delete it, or keep"
    with pytest.raises(CheckpointError, match=wanted):
        read(tmp_path / "fit")
    assert (tmp_path / "fit").read_bytes() == content


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    import io

    from hmcvi.inference.durable import write_checked

    path, buffer = tmp_path / "fit", io.BytesIO()
    np.savez(buffer, header=np.array([{"format": "x"}], object), allow_pickle=True)
    write_checked(path, buffer.getvalue())  # a checksum that is right
    with pytest.raises(CheckpointError, match="allow_pickle=False"):
        read(path)


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", 1)
    (tmp_path / "fit").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="symbolic link"):
        read(tmp_path / "fit")


def test_on_a_full_disk_the_fit_goes_on_and_the_checkpoint_before_stays(tmp_path: Path) -> None:
    import resource

    path, said = tmp_path / "fit", []
    write(path, 1)
    checkpoint = Checkpoint(path, every=0, say=said.append)
    checkpoint.begin(dict)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
        checkpoint.offer("steps", partial(kept, 2))
        checkpoint.offer("steps", partial(kept, 3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(said) == 1
    assert "cannot be written (File too large): the fit goes on" in said[0]
    assert read(path) == (1, [])
    assert [file.name for file in tmp_path.iterdir()] == ["fit"]
    checkpoint.offer("steps", partial(kept, 4))
    assert read(path) == (4, [])


def test_it_is_written_at_intervals_and_takes_a_hundredth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, written = [0.0], []
    monkeypatch.setattr("hmcvi.inference.checkpoint.time.perf_counter", lambda: now[0])
    checkpoint = Checkpoint(tmp_path / "fit", every=10)
    checkpoint.begin(dict)

    def slow() -> Kept:
        written.append(now[0])
        now[0] += 0.5
        return kept(1)

    while now[0] < 150:
        now[0] += 1
        checkpoint.offer("steps", slow)
    assert written[0] == 10
    assert np.diff(written) == pytest.approx([50.5, 51.0], abs=1)  # 100 × the half second that writing takes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_heeded_after_the_compiled_call(number: signal.Signals, tmp_path: Path) -> None:
    path, method = tmp_path / "fit", METHODS["svi"]
    before = signal.getsignal(number)

    class Interrupted(Checkpoint):
        calls = 0

        def offer(self, stage: str, make: Any) -> float:
            self.calls += 1
            if self.calls == 2:
                assert super().offer(stage, make) == 0  # not yet time to write
                signal.raise_signal(number)  # nothing is raised here: what is done is not on the disk
            return super().offer(stage, make)

    with pytest.raises(KeyboardInterrupt, match=r"the fit is kept in .*fit$"):
        fit(KEY, MODEL, X, Y, method, checkpoint=Interrupted(path))
    assert signal.getsignal(number) == before
    assert bytes_of(fit(KEY, MODEL, X, Y, method, checkpoint=path)) == bytes_of(fit(KEY, MODEL, X, Y, method))


@pytest.mark.parametrize("name", ["nuts", "svi"])
def test_an_interrupt_after_the_last_call_keeps_what_was_drawn(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, method = tmp_path / "fit", METHODS[name]
    whole = fit(KEY, MODEL, X, Y, method)
    real = type(method).fit

    def interrupted(self: Any, *arguments: Any) -> Fit:
        result = real(self, *arguments)
        signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(type(method), "fit", interrupted)
    with pytest.raises(KeyboardInterrupt, match="the fit is kept in"):
        fit(KEY, MODEL, X, Y, method, checkpoint=path)
    monkeypatch.setattr(type(method), "fit", real)
    monkeypatch.setattr("hmcvi.inference.optimise.Descent.run", None)  # no step, no draw is made again
    monkeypatch.setattr("hmcvi.inference.chains.Sampler._detail", None)
    assert bytes_of(fit(KEY, MODEL, X, Y, method, checkpoint=path)) == bytes_of(whole)


def test_an_interrupt_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Checkpoint(tmp_path / "fit"):
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_fit_that_fails_leaves_no_checkpoint_to_fail_from_again(tmp_path: Path) -> None:
    with pytest.raises(FitError, match="lower the learning rate"):
        fit(KEY, MODEL, X, Y, SVI(num_steps=300, learning_rate=1e30), checkpoint=Checkpoint(tmp_path / "fit", every=0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("every", [-1.0, float("nan")])
def test_an_interval_that_is_none_is_refused(every: float) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        Checkpoint("fit", every)


@pytest.mark.parametrize(("place", "wanted"), [("no/fit", "no is no folder that can be written"), ("", "is a folder")])
def test_a_place_that_cannot_be_written_is_refused_before_the_fit(place: str, wanted: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=wanted):
        fit(KEY, MODEL, X, Y, MAP(num_steps=300), checkpoint=tmp_path / place)
