"""Ctrl-C and SIGTERM: an end in good order where it can be had within seconds, and an end where it cannot."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["EndingSoon"]

PATIENCE = 5.0
"""Seconds that an end in good order may take: XLA compiles for half a minute without looking up."""

SHOW_CURSOR = "\x1b[?25h"
"""What a live line on a terminal has hidden."""


class EndingSoon:
    """While it is open, SIGTERM raises KeyboardInterrupt as Ctrl-C does, and either ends the process within seconds.

    Python heeds a signal between two of its own instructions only. A thread that the system wakes at once ends the
    process where that takes too long; what is on the disk is whole, as every file here appears whole or not at all.

    Arguments:
        sentence: what is said where the process is ended so.
        patience: seconds to wait.
    """

    def __init__(self, sentence: str, patience: float = PATIENCE) -> None:
        self._sentence, self._patience = sentence, patience
        self._over = threading.Event()
        self._in_main = threading.current_thread() is threading.main_thread()
        self.number = int(signal.SIGINT)

    @property
    def status(self) -> int:
        """The exit status of a process that the last signal ended, as shells have it."""
        return 128 + self.number

    def __enter__(self) -> EndingSoon:
        if self._in_main:
            self._woken, waker = socket.socketpair()
            waker.setblocking(False)
            self._waker = waker
            self._before = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
            self._sigterm: Any = signal.getsignal(signal.SIGTERM)
            if self._sigterm == signal.SIG_DFL:  # neither ignored nor somebody else's
                signal.signal(signal.SIGTERM, _interrupt)
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._in_main:
            self._over.set()
            if self._sigterm == signal.SIG_DFL:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.set_wakeup_fd(self._before)
            self._waker.close()  # which wakes the thread, and ends it

    def _watch(self) -> None:
        with self._woken:
            while received := self._woken.recv(1):
                if received[0] in (signal.SIGINT, signal.SIGTERM):
                    self.number = received[0]
                    if not self._over.wait(self._patience):
                        shown = SHOW_CURSOR if sys.stderr.isatty() else ""
                        print(f"{shown}\nhmcvi: interrupted; {self._sentence}", file=sys.stderr, flush=True)
                        os._exit(self.status)
                    return


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
