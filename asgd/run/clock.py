"""Two clocks: the run's, which the server keeps, and the server's own, as a client estimates it.

Machines share no clock, so a client learns the server's from the stamps that `Welcome` and `Job` carry: the moment at
which the server sent them, by its clock. A message's way takes some time, and the client reckons that the shortest way
so far took none. Its estimate is therefore behind the server's clock by that shortest way (on one machine some 0.1 ms,
between machines one way of the network) and never ahead of it; ways to the client look shorter by so much and ways
back longer, their sum is right, and none comes out below 0. Clocks of two machines drift apart, by microseconds per
second at most where they are kept in step (NTP); nothing here corrects that.
"""

from __future__ import annotations

import time
from math import inf


class Clock:
    """Seconds of the run: 0 until it begins; a resumed run goes on from where it was."""

    def __init__(self, offset_s: float = 0.0) -> None:
        self._offset_s = offset_s
        self._started_s: float | None = None

    def begin(self) -> None:
        if self._started_s is None:
            self._started_s = time.monotonic()

    def now_s(self) -> float:
        return self.at(time.monotonic())

    def at(self, server_s: float) -> float:
        """The run's clock when time.monotonic() of this process was `server_s`; below 0 for what was before the run."""
        return self._offset_s + (0.0 if self._started_s is None else server_s - self._started_s)


class ServerClock:
    """The server's clock as one of its clients estimates it, and when jobs came; the times given are time.monotonic().

    Formula: server_s(t) = t - min over all stamped messages of (received - sent).

    Example:
        >>> clock = ServerClock(sent_s=100.0, received_s=7.5)   # the handshake's answer: 92.5 s apart, or more
        >>> clock.job_came_s(sent_s=100.0, received_s=8.0, waited=True)
        8.0
        >>> clock.job_came_s(sent_s=101.0, received_s=20.0, waited=False)   # it was there when we looked
        9.0
        >>> clock.server_s(9.0)
        101.5
    """

    def __init__(self, sent_s: float, received_s: float) -> None:
        self._apart_s = received_s - sent_s
        self._job_apart_s = inf

    def job_came_s(self, sent_s: float, received_s: float, *, waited: bool) -> float:
        """When a job was there; `waited` says that somebody waited for it, so that it was then seen at once.

        A job that is found after a computation came at some moment before: as long after it was sent as the fastest
        job so far that was waited for.
        """
        self._apart_s = min(self._apart_s, received_s - sent_s)
        if waited:
            self._job_apart_s = min(self._job_apart_s, received_s - sent_s)
            return received_s
        return min(received_s, sent_s + self._job_apart_s)

    def server_s(self, local_s: float) -> float:
        """The server's clock at a moment of this process's."""
        return local_s - self._apart_s
