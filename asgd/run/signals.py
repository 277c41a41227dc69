"""Asking a role to stop: by signal, or by a message of the supervisor."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class StopRequests:
    """The reasons to stop that have come in; the role's loop takes them when it is ready."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self.asked = False

    def ask(self, reason: str) -> None:
        self._reason, self.asked = reason, True

    def take(self) -> str | None:
        """The reason, once."""
        reason, self._reason = self._reason, None
        return reason

    def clear(self) -> None:
        """Forget what was asked: only a further request counts."""
        self._reason, self.asked = None, False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.ask(f"interrupted by {signal.Signals(number).name}")


@contextlib.contextmanager
def stopping_by_signals() -> Iterator[StopRequests]:
    """SIGINT, SIGTERM and SIGHUP become stop requests for as long as this lasts; a SIGHUP that is ignored, as by nohup,
    stays so.
    """
    stops = StopRequests()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = [signal.signal(number, stops._on_signal) for number in numbers]
    try:
        yield stops
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
