"""Who is expected back after a restart: the workers that the core knows from before, and the jobs that they have."""

from __future__ import annotations

from asgd.core.state import ServerState
from asgd.run.sessions import Sessions


class Expected:
    """The members of the core without a session, until each is back or the time for that is over.

    Arguments: state: the core as it was kept; sessions: who is connected; grace_s: how long they may take.
    """

    def __init__(self, state: ServerState, sessions: Sessions, grace_s: float) -> None:
        self._state, self._sessions, self._grace_s = state, sessions, grace_s
        self._until_s: float | None = None

    def begin(self, now_s: float) -> None:
        """The server is there again; `now_s`: of the same clock as `overdue`'s."""
        self._until_s = now_s + self._grace_s

    def jobs(self) -> dict[int, list[int]]:
        """The workers that haven't come back, each with its outstanding jobs."""
        away = {worker: list[int]() for worker in self._state.workers if self._sessions.of_worker(worker) is None}
        for job in self._state.outstanding:
            if job.worker in away:
                away[job.worker].append(job.job)
        return away

    def overdue(self, now_s: float) -> list[tuple[int, str]]:
        """The workers that are given up now, once, and why."""
        if self._until_s is None or now_s < self._until_s:
            return []
        self._until_s = None
        return [(worker, f"not back {self._grace_s:g} s after the server's restart") for worker in self.jobs()]
