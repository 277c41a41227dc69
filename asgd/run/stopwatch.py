"""What the server's time of training goes to: a stopwatch that charges every moment to at most one phase."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

import msgspec

from asgd.run.formats import ServerTimes


class _Phase:
    """Charges the time within `with` to one phase; a phase that begins within another one interrupts that."""

    def __init__(self, watch: Stopwatch) -> None:
        self.spent_s = 0.0
        self._watch = watch

    def __enter__(self) -> None:
        self._watch.enter(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watch.leave()


class Stopwatch:
    """Splits the time between `start` and `stop` among phases; before and after, nothing is counted.

    Formula: receive + decide + apply + send + record + idle <= stop - start; the rest is what is in no phase.
    Arguments: now_s: a clock that never goes back.

    Example:
        >>> watch = Stopwatch(now_s=iter([0.0, 1.0, 3.0, 4.0, 6.0, 7.0]).__next__)
        >>> watch.start()
        >>> with watch.apply:          # from 1 on
        ...     with watch.record:     # from 3 to 4
        ...         pass               # ... and to 6
        >>> watch.stop()
        >>> watch.times().apply_s, watch.times().record_s
        (4.0, 1.0)
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self.receive, self.decide, self.apply = _Phase(self), _Phase(self), _Phase(self)
        self.send, self.record, self.idle = _Phase(self), _Phase(self), _Phase(self)
        self._now_s = now_s
        self._rest = _Phase(self)
        self._stack = [self._rest]
        self._since_s: float | None = None
        self._stopped = False

    def go_on_from(self, spent: ServerTimes) -> None:
        """Count on top of what an earlier server of the same run has counted."""
        for name, seconds in msgspec.structs.asdict(spent).items():
            getattr(self, name.removesuffix("_s")).spent_s = seconds

    def start(self) -> None:
        """Count from now on; nothing when it has been started before."""
        if self._since_s is None and not self._stopped:
            self._since_s = self._now_s()

    def stop(self) -> None:
        """Count no more."""
        self._charge()
        self._since_s, self._stopped = None, True

    def enter(self, phase: _Phase) -> None:
        self._charge()
        self._stack.append(phase)

    def leave(self) -> None:
        self._charge()
        self._stack.pop()

    def _charge(self) -> None:
        if self._since_s is not None:
            now_s = self._now_s()
            self._stack[-1].spent_s += now_s - self._since_s
            self._since_s = now_s

    def times(self) -> ServerTimes:
        """The seconds of each phase so far."""
        return ServerTimes(
            receive_s=self.receive.spent_s,
            decide_s=self.decide.spent_s,
            apply_s=self.apply.spent_s,
            send_s=self.send.spent_s,
            record_s=self.record.spent_s,
            idle_s=self.idle.spent_s,
        )
