"""What can happen to the server: the events that `ServerState.handle` takes.

An event says who and when; `now_s` is the run's clock in seconds, given by whoever drives the core (the real server,
the simulator, replay). Tensors stay outside: an arrival is its header.
"""

from __future__ import annotations

from typing import NamedTuple


class Join(NamedTuple):
    """A worker is there and may be given jobs."""

    worker: int
    now_s: float


class Leave(NamedTuple):
    """A worker is gone, with every job that it had."""

    worker: int
    reason: str
    now_s: float


class Begin(NamedTuple):
    """Start with the workers that are there, although not all that were expected have joined."""

    now_s: float


class Arrival(NamedTuple):
    """A worker's answer to a job.

    `version` is the version that the worker says it computed at; `finite` is whether every number of the gradient and
    the loss is finite (only the caller can see the tensor); `wait_s` is the time that the worker waited out to
    emulate a slower machine; `distance` is ||x_t - x_{t - tau}||, from the parameters now to those that the job was
    given, where the method needs it; `queue_s` is the time that the job lay at the worker before it was begun,
    `started_s` when it was, by the run's clock (None where nobody knows);
    `norm` is the gradient's, where there is a norm guard.
    """

    worker: int
    job: int
    version: int
    loss: float
    samples: int
    compute_s: float
    now_s: float
    wait_s: float = 0.0
    finite: bool = True
    distance: float | None = None
    queue_s: float = 0.0
    started_s: float | None = None
    norm: float | None = None


class Tick(NamedTuple):
    """Nothing happened but time."""

    now_s: float


class Stop(NamedTuple):
    """Somebody asks for the end; `failed` says that the run can't go on."""

    reason: str
    now_s: float
    failed: bool = False


class Resume(NamedTuple):
    """A restored server starts: the jobs that were in flight when its state was saved are gone."""

    now_s: float


Event = Join | Leave | Begin | Arrival | Tick | Stop | Resume
