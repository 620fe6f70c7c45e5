"""A fit on disk while it runs: after an interruption the same call goes on, and ends in the same bytes."""

from __future__ import annotations

import functools
import io
import json
import os
import signal
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .durable import read_checked, write_checked
from .processes import from_first, gathered, is_first, together

__all__ = ["Checkpoint", "CheckpointError", "Kept", "first_difference"]

FORMAT = "hmcvi checkpoint 2"

SECONDS = 30.0
"""Seconds between two checkpoints, unless said otherwise."""

SHARE = 0.01
"""Share of the time that writing takes at most: what is costly to write is written less often."""


class CheckpointError(ValueError):
    """A checkpoint that this fit cannot go on from; the sentence says why, and what to do."""


@dataclass(frozen=True)
class Kept:
    """What a stage of a fit leaves: plain values, and the leaves of trees of arrays.

    Attributes:
        values: numbers, texts and lists by name.
        leaves: leaves (leaf,) of each tree by its name, random keys as their data.
    """

    values: Mapping[str, Any]
    leaves: Mapping[str, Sequence[np.ndarray]]

    @classmethod
    def of(cls, values: Mapping[str, Any], **trees: Any) -> Kept:
        """Take plain values and trees of arrays, which are copied to the host."""
        return cls(values, {name: [_as_array(leaf) for leaf in jax.tree.leaves(tree)] for name, tree in trees.items()})

    def tree(self, name: str, like: Any, *, same_shapes: bool = True) -> Any:
        """Return a tree of the structure of another.

        Arguments:
            name: the tree's name.
            like: a tree of arrays or of their shapes and dtypes.
            same_shapes: whether its leaves must have the shapes and dtypes of the other's, and are put on the device.

        Raises:
            CheckpointError: the structures or the shapes differ.
        """
        leaves, templates = self.leaves.get(name, ()), jax.tree.leaves(like)
        if len(leaves) != len(templates):
            raise CheckpointError(f"its {name} has {len(leaves)} arrays and {len(templates)} are wanted")
        if same_shapes:
            placed = [_like(leaf, template, name) for leaf, template in zip(leaves, templates, strict=True)]
            return jax.tree.unflatten(jax.tree.structure(like), placed)
        return jax.tree.unflatten(jax.tree.structure(like), leaves)


@dataclass
class _Run:
    """What all parts of one checkpoint share."""

    finished: dict[str, Kept] = field(default_factory=dict)
    begun: dict[str, Kept] = field(default_factory=dict)
    latest: tuple[str, Callable[[], Kept | None]] | None = None
    identity: Callable[[], dict[str, Any]] = dict
    elapsed: float = 0.0
    began: float = 0.0
    written: float = 0.0
    cost: float = 0.0
    unsaved: bool = False
    stop: int | None = None
    told: bool = False
    damaged: bool = False
    joint: bool = False


class Checkpoint:
    """A file that a fit is kept in while it runs.

    Pass it (or just the path) to `hmcvi.inference.fit`: where the file is there, the fit goes on from it, and its
    draws, statistics and losses are the same bytes as those of a fit that was never interrupted, if the versions, the
    device, the number of devices, the precision and the kind of processor are the same. A file of another request is
    refused. The file is written between two compiled calls, no sooner than `every` seconds after the last time and,
    unless that is 0, so seldom that it takes a hundredth of the time. It holds a SHA-256 of itself; of a damaged file
    the one before it (`<name>.previous`) takes the place. It stays when the fit is over: `remove` it then.

    Interrupts (Ctrl-C, SIGTERM) that come while a fit with a checkpoint runs are heeded after the compiled call, of two
    seconds or one step: the state is written, and KeyboardInterrupt raised. A second one does not wait for that; but
    Python heeds none while XLA compiles.

    Arguments:
        path: the file, whose folder is there; None keeps nothing.
        every: seconds between two times it is written at least; 0 writes after every compiled call.
        say: told, in a sentence, that an older checkpoint was used, or that one cannot be written (the fit then goes
            on without); warns by default.
        keeps_end: whether the file is written when the fit is over too, so that the same call again makes no draw.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        every: float = SECONDS,
        say: Callable[[str], None] | None = None,
        keeps_end: bool = True,
    ) -> None:
        if not every >= 0:
            raise ValueError(f"Checkpoint got every={every}: give a number of seconds of at least 0")
        self.path = None if path is None else Path(path)
        self.every = float(every)
        self._keeps_end = keeps_end
        self._say = say or (lambda sentence: warnings.warn(sentence, stacklevel=3))
        self._prefix = ""
        self._run = _Run()
        self._handlers: dict[int, Any] = {}

    @property
    def previous(self) -> Path | None:
        """The file that takes the place of a damaged one."""
        return None if self.path is None else self.path.with_name(f"{self.path.name}.previous")

    def exists(self) -> bool:
        """Return whether there is a file to go on from."""
        return any(path is not None and path.exists() for path in (self.path, self.previous))

    def remove(self) -> None:
        """Delete the files, as once the fit is saved elsewhere."""
        for path in (self.path, self.previous):
            if path is not None:
                path.unlink(missing_ok=True)

    @property
    def elapsed(self) -> float:
        """Seconds that earlier processes had spent on the fit when they last wrote."""
        return self._run.elapsed

    def begin(self, identity: Callable[[], dict[str, Any]], joint: bool = False) -> None:
        """Read what there is to go on from; called by `hmcvi.inference.fit`.

        Arguments:
            identity: returns, as plain data, all that the bytes of the fit depend on; called if that is needed.
            joint: whether all processes make this fit together: the first then reads and writes for all.

        Raises:
            CheckpointError: the file is of another request or version, or it and the one before it are damaged.
        """
        self._run = _Run(identity=functools.cache(identity), began=time.perf_counter(), written=time.perf_counter())
        if self.path is None:
            return
        self._run.joint = joint and jax.process_count() > 1
        if self._run.joint:
            found = together(lambda: self._read() if is_first() else None)
            content: Any = from_first(lambda: b"" if found is None else bytes(found[1]))
        else:
            found = self._read()
            content = b"" if found is None else found[1]
        if not content:
            return
        path = self.path if found is None else found[0]
        header, stages = _parse(content)
        self._check_identity(path, header)  # which all processes do alike
        self._run.elapsed = float(header["elapsed"])
        for name, is_finished in header["stages"].items():
            (self._run.finished if is_finished else self._run.begun)[name] = stages[name]

    def _check_identity(self, path: Path, header: dict[str, Any]) -> None:
        differs = first_difference(header["identity"], json.loads(json.dumps(self._run.identity())))
        if differs is not None:
            name, there, here = differs
            what = f"its {name} is {_short(there)} and {_short(here)} was asked for"
            if name == "model.program":
                what = f"its {name} is another: the model's code has changed, or what it holds on to"
            raise CheckpointError(f"{path} is of another fit: {what}; delete it, or keep this fit in another file")

    def _check_place(self) -> None:
        if self.path is None:
            return
        if self.path.is_dir():
            raise CheckpointError(f"{self.path} is a folder: give a file to keep the fit in")
        if not (self.path.parent.is_dir() and os.access(self.path.parent, os.W_OK)):
            raise CheckpointError(
                f"{self.path.parent} is no folder that can be written: make it first, or give another"
            )

    def part(self, name: str) -> Checkpoint:
        """Return the same checkpoint for a part of the fit, whose stages have names of their own."""
        inner = Checkpoint(self.path, self.every, self._say)
        inner._run, inner._prefix = self._run, f"{self._prefix}{name}/"
        return inner

    def saved(self, stage: str) -> Kept | None:
        """Return what this stage of the fit left, whether it was over or not; None where it had not begun."""
        name = self._prefix + stage
        return self._run.finished.get(name) or self._run.begun.get(name)

    def offer(self, stage: str, make: Callable[[], Kept | None]) -> float:
        """Write the file if it is time for it, and return the seconds that it took.

        Arguments:
            stage: which stage of the fit is running.
            make: called for what to keep of it, if it is time; None where it is nothing to go on from.

        Raises:
            KeyboardInterrupt: one was asked for; the state is written.
        """
        run = self._run
        if self.path is None:
            return 0.0
        now = time.perf_counter()
        run.latest, run.unsaved = (self._prefix + stage, make), True
        run.begun.clear()  # it has been gone on from
        wait = max(self.every, run.cost / SHARE) if self.every else 0.0
        is_time = self._agree_on_stop(now - run.written >= wait)
        if run.stop is None and not is_time:
            return 0.0
        self._write()
        run.written = time.perf_counter()
        run.cost, run.unsaved = run.written - now, False
        self._heed()
        return run.cost

    def finish(self, stage: str, make: Callable[[], Kept]) -> None:
        """Keep what a stage that is over leaves: it goes into every file from now on."""
        if self.path is not None:
            self._run.finished[self._prefix + stage] = make()
            self._run.latest, self._run.unsaved = None, True

    def __enter__(self) -> Checkpoint:
        if self.path is not None and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if handler is not None and handler != signal.SIG_IGN:  # one not of Python's cannot be put back
                    self._handlers[number] = signal.signal(number, self._asked_to_stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
        if kind is None and self.path is not None:
            self._agree_on_stop(False)
            if self._run.unsaved and (self._keeps_end or self._run.stop is not None):
                self._write()
            self._heed()

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        again = self._run.stop is not None
        self._run.stop = number
        # one of several processes alone cannot end in good order: they stop together, where they next agree
        if again or (not self._run.unsaved and not self._run.joint):
            self._heed()

    def _agree_on_stop(self, is_time: bool) -> bool:
        """Take over a signal that another process got, and return whether process 0 says that it is time."""
        if not self._run.joint:
            return is_time
        said = gathered(np.array([self._run.stop or 0, is_time], np.int32))
        self._run.stop = int(said[:, 0].max()) or None
        return bool(said[0, 1])

    def _heed(self) -> None:
        if self._run.stop is not None:
            kept = self.path if self.path is not None and self.path.exists() else None
            raise KeyboardInterrupt("" if kept is None else f"the fit is kept in {kept}")

    def _write(self) -> None:
        run, path, stages = self._run, self.path, dict(self._run.finished)
        assert path is not None
        if run.latest is not None:
            name, make = run.latest
            kept = make()
            if kept is None:
                return
            stages[name] = kept
        if self._run.joint and not is_first():
            return
        header = {
            "format": FORMAT,
            "identity": run.identity(),
            "elapsed": run.elapsed + time.perf_counter() - run.began,
            "stages": {name: name in run.finished for name in stages},
            "values": {name: kept.values for name, kept in stages.items()},
            "trees": {name: {tree: len(of) for tree, of in kept.leaves.items()} for name, kept in stages.items()},
        }
        arrays = {
            f"{place}/{tree}/{i}": leaf
            for place, kept in enumerate(stages.values())
            for tree, of in kept.leaves.items()
            for i, leaf in enumerate(of)
        }
        text = json.dumps(header, default=lambda value: value.item()).encode()  # a number of NumPy's
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, header=np.frombuffer(text, np.uint8), **arrays)
        try:
            # a damaged file must not take the place of the sound one before it
            write_checked(path, buffer.getbuffer(), None if run.damaged else self.previous)
            run.damaged = False
        except OSError as error:
            if not run.told:
                self._say(f"{path} cannot be written ({error.strerror}): the fit goes on, and is kept when it can be")
            run.told = True

    def _read(self) -> tuple[Path, memoryview] | None:
        """Return the sound file and its content; no pickle is read."""
        self._check_place()
        faults = []
        for path in (self.path, self.previous):
            if path is None or not path.exists():
                continue
            try:
                if path.is_symlink():
                    raise ValueError("it is a symbolic link")
                content = read_checked(path)
                _parse(content)
            except _FormatError as error:
                raise CheckpointError(f"{path} {error}; delete it, or keep this fit in another file") from None
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                faults.append((path, error))
                continue
            self._run.damaged = bool(faults)
            if faults:
                self._say(f"{faults[0][0]} is damaged ({faults[0][1]}): the fit goes on from {path}")
            return path, content
        if faults:
            names, reason = " and ".join(str(path) for path, _ in faults), faults[0][1]
            raise CheckpointError(
                f"damaged, or no checkpoint: {names} ({reason}); delete what is named, and the fit begins anew, or "
                "give another file"
            ) from reason
        return None


class _FormatError(ValueError):
    """A sound file of another format; the sentence says of which, after the file's name."""


def _parse(content: bytes | memoryview) -> tuple[dict[str, Any], dict[str, Kept]]:
    """Return the header and the stages of a file's content; no pickle is read."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        header = json.loads(arrays["header"].tobytes())
        if header["format"] != FORMAT:
            raise _FormatError(f"is of another version: {header['format']!r}, and {FORMAT!r} is wanted")
        return header, {
            name: Kept(
                header["values"][name],
                {tree: [arrays[f"{i}/{tree}/{j}"] for j in range(n)] for tree, n in header["trees"][name].items()},
            )
            for i, name in enumerate(header["stages"])
        }


def first_difference(there: Any, here: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Return (field, value there, value here) of the first difference of two trees of plain data."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in {**here, **there}:
            found = first_difference(there.get(key), here.get(key), f"{name}.{key}" if name else key)
            if found is not None:
                return found
        return None
    return None if there == here else (name, there, here)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_array(leaf: Any) -> np.ndarray:
    """Return the numbers of a leaf; what is on a device is copied, as a compiled call may take its memory."""
    return leaf if isinstance(leaf, np.ndarray) else np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _like(leaf: np.ndarray, template: Any, name: str) -> jax.Array:
    if _is_key(template):
        return jax.random.wrap_key_data(jnp.asarray(leaf), impl=jax.random.key_impl(template))
    wanted = jnp.shape(template), jnp.result_type(template)
    if (leaf.shape, leaf.dtype) != wanted:
        raise CheckpointError(f"its {name} holds {leaf.dtype} {leaf.shape} where {wanted[1]} {wanted[0]} is wanted")
    return jnp.asarray(leaf)
