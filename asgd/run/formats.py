"""What a run's record holds beside the trace: the typed content of metrics.jsonl and summary.json, a public format.

Additions are free; a key is not renamed or given another meaning.
"""

from __future__ import annotations

from math import isfinite

import msgspec

_OWN_METRICS = ("test_accuracy", "test_loss", "train_loss")


class MetricsRow(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation, a line of `metrics.jsonl`; a number that is not finite is written, and read back, as None."""

    time_s: float
    version: int
    samples_seen: int
    test_loss: float | None = None
    test_accuracy: float | None = None
    train_loss: float | None = None
    results: dict[str, float | None] = {}

    def value(self, name: str) -> float | None:
        """A metric by its name, as it is; None where this evaluation has none, as train_loss at version 0."""
        return getattr(self, name) if name in _OWN_METRICS else self.results.get(name)

    @property
    def others(self) -> dict[str, float | None]:
        """The results that aren't fields of their own: `loss` and `accuracy` are, as test_loss and test_accuracy."""
        return {name: value for name, value in self.results.items() if name not in ("loss", "accuracy")}

    @property
    def values(self) -> dict[str, float]:
        """The metrics that are finite numbers, by name.

        Example:
            >>> row = MetricsRow(time_s=1.0, version=2, samples_seen=64, test_loss=0.5, results={"loss": 0.5, "f": 2.0})
            >>> row.values
            {'test_loss': 0.5, 'f': 2.0}
        """
        named = {name: self.value(name) for name in _OWN_METRICS} | self.others
        return {name: value for name, value in named.items() if value is not None and isfinite(value)}


class DelaySummary(msgspec.Struct, frozen=True, kw_only=True):
    """Delays in server updates: means of the used gradients, and Definition 4's average with the jobs in flight."""

    mean_applied: float
    average: float
    max: int
    per_worker: dict[int, float]


class ServerTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Where the server's time of training went, in seconds (all 0 in virtual time); what is left to the run's wall
    time went elsewhere (the status, the supervisor's messages).

    `receive_s`: taking messages from the socket, decoding them and copying their vectors; `decide_s`: the core;
    `apply_s`: its actions on vectors, and looking whether a gradient is finite; `send_s`: jobs and replies; `record_s`:
    trace, metrics, checkpoints and snapshots; `idle_s`: waiting for a message. A resumed run goes on counting from its
    checkpoint.
    """

    receive_s: float = 0.0
    decide_s: float = 0.0
    apply_s: float = 0.0
    send_s: float = 0.0
    record_s: float = 0.0
    idle_s: float = 0.0


class ServerSummary(ServerTimes, frozen=True, kw_only=True):
    """What the server did: share of the wall time it was busy (0 to 1), bytes over its sockets, and where its
    time went.

    `refused_messages`: of any kind; `clients_cut_off`: those that went on; `max_memory_bytes`: the most that its
    process has had in memory.
    """

    busy_fraction: float
    bytes_in: int
    bytes_out: int
    refused_messages: int = 0
    clients_cut_off: int = 0
    max_memory_bytes: int = 0


class WorkerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's part in a run: gradients used (applied or accumulated) and discarded, jobs lost.

    `share`: its part of all used gradients; `weight`: the step sizes with which its gradients went into the model, as
    part of all. Both add up to 1 over the workers, or are 0 where there were none.
    """

    used: int
    discarded: int
    lost: int
    share: float
    weight: float


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What the run ran on."""

    python: str
    torch: str
    platform: str
    cores: int


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `summary.json`, written when a run has ended; `finished` is False when it ended before its budget.

    `concurrency` is the largest number of outstanding jobs; `samples` counts those of
    all gradients that arrived, used or not; `used` counts the gradients that were applied or accumulated; `workers`
    holds each worker's part by its number;
    `outstanding` holds the delays of the jobs still in flight at the end; `lost` counts jobs, `restarts` the starts of
    workers after the first, `server_restarts` those of the server;
    `quarantined` says of each worker that got no more jobs why.
    """

    method: str
    versions: int
    arrivals: int
    discarded: int
    lost: int
    samples: int
    wall_s: float
    concurrency: int
    delay: DelaySummary
    outstanding: list[int]
    server: ServerSummary
    test_accuracy: float | None
    parameters_sha256: str
    finished: bool
    stopped_because: str
    seed: int
    environment: Environment
    mean_concurrency: float = 0.0
    test_loss: float | None = None
    train_loss: float | None = None
    used: int = 0
    refused: int = 0
    restarts: int = 0
    server_restarts: int = 0
    evaluations_missing: int = 0
    samples_per_s: float = 0.0
    updates_per_s: float = 0.0
    startup_s: float = 0.0
    workers: dict[int, WorkerSummary] = {}
    quarantined: dict[int, str] = {}
