"""What the server's time of training goes to: a stopwatch whose laps are charged to phases."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, get_args

from asgd.run.formats import ServerTimes

Phase = Literal["receive_s", "decide_s", "apply_s", "send_s", "record_s", "idle_s", "other_s"]
_TOLD: tuple[Phase, ...] = tuple(phase for phase in get_args(Phase) if phase != "other_s")


class Stopwatch:
    """Splits the time between `start` and `stop` among phases; before and after, nothing is counted.

    Formula: receive + decide + apply + send + record + idle + other = time of the last lap - time of the start.
    Arguments: now_s: a clock that never goes back. A lap costs 0.2 us: cheap enough for some ten per arrival, where
    context managers would be a tenth of the server's work on a small model.

    Example:
        >>> watch = Stopwatch(now_s=iter([0.0, 1.0, 3.0, 4.0]).__next__)
        >>> watch.start()
        >>> watch.lap("receive_s"), watch.lap("apply_s")   # at 1 and 3
        (None, None)
        >>> watch.stop()
        >>> watch.times().receive_s, watch.times().apply_s, watch.other_s
        (1.0, 2.0, 1.0)
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._spent_s: dict[Phase, float] = dict.fromkeys(get_args(Phase), 0.0)
        self._since_s = 0.0
        self._state: Literal["new", "running", "stopped"] = "new"

    def go_on_from(self, spent: ServerTimes) -> None:
        """Count on top of what earlier servers of the same run have counted."""
        for phase in _TOLD:
            self._spent_s[phase] = getattr(spent, phase)

    def start(self) -> None:
        """Count from now on; nothing when it has been started before."""
        if self._state == "new":
            self._state, self._since_s = "running", self._now_s()

    def lap(self, phase: Phase) -> None:
        """Charge the time since the last lap (or the start) to `phase`."""
        if self._state == "running":
            now_s = self._now_s()
            self._spent_s[phase] += now_s - self._since_s
            self._since_s = now_s

    def stop(self) -> None:
        """Count no more."""
        self.lap("other_s")
        self._state = "stopped"

    def times(self) -> ServerTimes:
        """The seconds of each phase so far."""
        return ServerTimes(**{phase: self._spent_s[phase] for phase in _TOLD})

    @property
    def other_s(self) -> float:
        """What was charged to no phase of `ServerTimes`."""
        return self._spent_s["other_s"]
