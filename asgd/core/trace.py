"""One line of a run's history: what arrived, how stale it was and what was done with it."""

from __future__ import annotations

from dataclasses import dataclass


# Not frozen, though nobody changes a row: making a frozen one takes longer than any other part of an arrival.
@dataclass(slots=True)
class TraceRow:
    """One arrival (or loss) at the server, as written to `trace.jsonl`.

    Formula:
        delay = version - read_version, in server updates and never in arrivals: a discarded gradient moves nothing.
        time_s - assigned_s = down + queue_s + (compute_s + wait_s) + up, where the job went: down = started_s -
        queue_s - assigned_s, its way to the worker, and before it the server's applying, recording and sending of what
        came with the arrival that it answered with this job; up = time_s - started_s - compute_s - wait_s, the way
        back, with what it waited for in the server's socket.

    Arguments:
        arrival: number of this row, consecutive from 0 over the whole run.
        time_s: seconds since the run started, >= 0, never decreasing.
        worker: number of the worker that had the job, >= 0.
        job: number of the job, unique over the whole run, restarts included.
        read_version: version of the parameters that the gradient was taken at (when the job was given).
        version: the server's version at the arrival, before the arrival had any effect.
        delay: version - read_version, >= 0.
        concurrency: jobs outstanding at the arrival, this one included, >= 1.
        action: "apply" (one step with it), "accumulate" (added to a slot), "discard" or "lost".
        steps: updates that this row caused, 0 or 1.
        step_size: step size of that update; None when there was none.
        reason: why it was discarded or lost (or treated otherwise than usual); None when there is nothing to say.
        loss: training loss of the job's batch; None when not known or not finite.
        samples: samples in the job's batch, >= 0 (0 for a lost job).
        compute_s: seconds the worker really computed.
        wait_s: seconds the worker waited on top to emulate a slower machine.
        distance: Euclidean norm of the parameters at the arrival minus those that the job was given; None where the
            method doesn't ask for it.
        assigned_s: when the job was given, by the run's clock, >= 0: the moment of the event (mostly an arrival) that
            the core answered with it, before anything was done about that; None in a trace from before this was kept.
        queue_s: seconds that the job lay at the worker before it was begun, >= 0 (0 for one that never arrived).
        started_s: when the worker began to compute it, by the run's clock as the worker estimates it; None for a job
            that never arrived (cancelled or lost) or whose driver has no such time. What was measured is kept: by how
            much the estimate can be wrong is said in asgd/run/clock.py, and so a way can come out below 0.

    Example:
        >>> row = TraceRow(arrival=0, time_s=0.1, worker=0, job=0, read_version=0, version=0, delay=0, concurrency=1,
        ...                action="apply", steps=1, step_size=0.05, reason=None, loss=2.3, samples=64,
        ...                compute_s=0.02, wait_s=0.0)
        >>> row.delay == row.version - row.read_version
        True

    Source: delays and concurrency are those of Koloskova, Stich, Jaggi, NeurIPS 2022, arXiv:2206.08307, Section 2.
    """

    arrival: int
    time_s: float
    worker: int
    job: int
    read_version: int
    version: int
    delay: int
    concurrency: int
    action: str
    steps: int
    step_size: float | None
    reason: str | None
    loss: float | None
    samples: int
    compute_s: float
    wait_s: float
    distance: float | None = None
    assigned_s: float | None = None
    queue_s: float = 0.0
    started_s: float | None = None
