"""A limit on the time that somebody's code may take."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TimeLimitError(BaseException):
    """Something took too long; the message says what, and how to allow more.

    No `Exception`, so that code that catches those does not swallow it.
    """


@contextmanager
def time_limit(seconds: float | None, what: str) -> Iterator[None]:
    """Raise `TimeLimitError` inside the block once it has run for `seconds`.

    It interrupts Python code, not a call that never comes back from C; and it needs signals, so
    there is no limit outside the main thread or on Windows.

    Args:
        seconds: None: no limit.
        what: the block, in words.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if seconds is None or not in_main_thread or not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TimeLimitError(f"{what} took longer than {seconds:g} s; --time-limit allows more")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
