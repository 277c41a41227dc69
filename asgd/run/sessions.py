"""Who is connected to the server: handshakes, and when a silent client counts as gone.

A session is made by a `Hello` that fits (protocol, parameter layout, the work itself) and ends by `Goodbye`, by the
death of its process (told by the supervisor), by silence, or when it can't be reached. Nothing here touches tensors
or the core.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from asgd.net.messages import PROTOCOL_VERSION, Hello

# A job may take this many times the worker's longest job so far; before its first one, so many times the shortest
# lease.
LEASE_FACTOR = 10.0


@dataclass
class Session:
    """One connected client: `worker` is -1 for an evaluator, `name` that of its key."""

    peer: bytes
    role: str
    worker: int
    host: str
    pid: int
    last_heard_s: float
    name: str = ""
    jobs: dict[int, float] = field(default_factory=dict)  # job -> when it was sent
    longest_job_s: float | None = None
    last_job_s: float | None = None
    last_answer_s: float = 0.0
    cancelled: int = 0  # jobs taken back from it, whose answers may still come
    num_probes: int = 0  # messages sent only to see whether it is there, since it was last heard
    taken: int = -1  # the last job whose answer has come
    from_before: set[int] = field(default_factory=set)  # jobs that it brought along from another session
    owes_since_s: float | None = None  # an evaluator, its next step: a result, a request, its leaving

    @property
    def process(self) -> tuple[str, str, int]:
        """What it is known by: the name of its key, and host and process as it says."""
        return self.name, self.host, self.pid

    def answered(self, job: int, now_s: float) -> None:
        """Note how long a job took from sending it (or from the answer before it) to its answer."""
        self.taken = job
        self.from_before.discard(job)
        sent_s = self.jobs.pop(job, None)
        if sent_s is not None:
            self.last_job_s = now_s - max(sent_s, self.last_answer_s)
            self.longest_job_s = max(self.longest_job_s or 0.0, self.last_job_s)
        self.last_answer_s = now_s

    def overdue(self, min_lease_s: float, max_lease_s: float, now_s: float) -> bool:
        """Whether this client counts as gone: silent without a job, or too long at one, when it need not say a word."""
        if self.role == "worker" and not self.jobs:
            return now_s - self.last_heard_s > min_lease_s
        if self.owes_since_s is not None and now_s - self.owes_since_s > max_lease_s:  # whatever else it says
            return True
        if self.role == "evaluator":  # silent for a whole batch
            silent_s, usual_s = now_s - self.last_heard_s, min_lease_s
        else:
            silent_s = now_s - max(min(self.jobs.values()), self.last_answer_s)
            usual_s = min_lease_s if self.longest_job_s is None else self.longest_job_s
        return silent_s > min(max_lease_s, max(min_lease_s, LEASE_FACTOR * usual_s))

    def how_late(self, now_s: float) -> str:
        """What to say of one that is overdue."""
        heard = f"last heard {now_s - self.last_heard_s:.0f} s ago"
        return heard if self.owes_since_s is None else f"nothing done for {now_s - self.owes_since_s:.0f} s, {heard}"

    def excuse(self, seconds: float) -> None:
        """Don't count a time in which the server itself stood still, and what came lay unread."""
        self.last_heard_s += seconds
        self.last_answer_s += seconds
        self.owes_since_s = None if self.owes_since_s is None else self.owes_since_s + seconds
        self.jobs = {job: sent_s + seconds for job, sent_s in self.jobs.items()}


class Sessions:
    """All sessions, found by peer or by worker.

    Arguments: layout and task: the digests that a client must have; min_lease_s, max_lease_s: the shortest and the
    longest silence, in seconds, after which a client counts as gone; most: sessions at once, and worker numbers, of
    each of which the run keeps something for good. `reserved`: numbers that only who asks for them gets: the
    supervisor's own workers.
    """

    def __init__(self, layout: str, task: str, min_lease_s: float, max_lease_s: float, most: int) -> None:
        self.layout = layout
        self.task = task
        self.min_lease_s, self.max_lease_s = min_lease_s, max_lease_s
        self.most = most
        self.reserved: frozenset[int] = frozenset()
        self._by_peer: dict[bytes, Session] = {}
        self._by_worker: dict[int, Session] = {}
        self.quarantined: dict[int, str] = {}  # by the worker's number
        self._quarantined_processes: dict[tuple[str, str, int], str] = {}

    def __len__(self) -> int:
        return len(self._by_peer)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_peer.values()))

    def of_peer(self, peer: bytes) -> Session | None:
        return self._by_peer.get(peer)

    def of_worker(self, worker: int) -> Session | None:
        return self._by_worker.get(worker)

    def fits(self, hello: Hello) -> bool:
        """Whether a client would do the same work with the same model."""
        return (hello.protocol, hello.layout, hello.task) == (PROTOCOL_VERSION, self.layout, self.task)

    def why_refused(self, hello: Hello, name: str, expected: Collection[int] = ()) -> tuple[str, bool] | None:
        """Why a client can't be let in and whether trying again can help; None when it can be.

        name: of its key; expected: as below.
        """
        why = self._misfit(hello, name)
        if why is not None:
            return why, False
        if hello.role == "worker" and hello.worker in self._by_worker:
            return f"worker {hello.worker} is there already", True
        if len(self) >= self.most:
            return f"{self.most} clients are there already (security.max_peers)", True
        if hello.role == "worker" and hello.worker < 0 and self._free_number(expected) >= self.most:
            return f"every worker number below {self.most} is taken (security.max_peers)", True
        return None

    def _misfit(self, hello: Hello, name: str) -> str | None:
        if hello.protocol != PROTOCOL_VERSION:
            return f"the server speaks protocol {PROTOCOL_VERSION}, you speak {hello.protocol}: install the same asgd"
        if hello.layout != self.layout:
            return "your model has another parameter layout than the server's: use the same task and options"
        if hello.task != self.task:
            return "your seed, task, options or batch size differ from the server's: use the same configuration"
        if hello.role != "worker":
            return None
        if hello.worker >= self.most:
            return f"there is no worker {hello.worker}: numbers here are below {self.most} (security.max_peers)"
        return self.quarantined.get(hello.worker) or self._quarantined_processes.get((name, hello.host, hello.pid))

    def _free_number(self, expected: Collection[int]) -> int:
        taken = self.reserved.union(self._by_worker, expected, self.quarantined)
        return next(number for number in range(len(taken) + 1) if number not in taken)

    def open(self, peer: bytes, hello: Hello, now_s: float, name: str = "", expected: Collection[int] = ()) -> Session:
        """Let a client in; a worker that doesn't mind gets the smallest free number that nobody is `expected` with."""
        worker = hello.worker
        if hello.role == "worker" and worker < 0:
            worker = self._free_number(expected)
        number = worker if hello.role == "worker" else -1
        session = Session(peer, hello.role, number, hello.host, hello.pid, now_s, name)
        self._by_peer[peer] = session
        if session.role == "worker":
            self._by_worker[session.worker] = session
        else:
            session.owes_since_s = now_s
        return session

    def quarantine(self, session: Session, reason: str) -> None:
        """Let neither the number of a worker nor its process in again."""
        self.quarantined[session.worker] = reason
        self._quarantined_processes[session.process] = reason

    def close(self, session: Session) -> None:
        self._by_peer.pop(session.peer, None)
        if self._by_worker.get(session.worker) is session:
            del self._by_worker[session.worker]

    def overdue(self, now_s: float) -> list[Session]:
        """The clients that count as gone."""
        return [session for session in self if session.overdue(self.min_lease_s, self.max_lease_s, now_s)]

    def excuse(self, seconds: float) -> None:
        """See `Session.excuse`."""
        for session in self:
            session.excuse(seconds)
