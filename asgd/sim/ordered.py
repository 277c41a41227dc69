"""A run in a chosen order: who arrives next is decided by a function, as an adversary would, and not by a clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from asgd.core.actions import Assign, Cancel, Finish, Quarantine, Record
from asgd.core.events import Arrival, Event, Join
from asgd.core.state import ServerState
from asgd.core.trace import TraceRow
from asgd.sim.virtual import Compute, Nothing

# worker -> its jobs (number, version), the oldest first
Jobs = dict[int, deque[tuple[int, int]]]


def run_order(
    state: ServerState,
    num_workers: int,
    choose: Callable[[Jobs, int], int],
    compute: Compute | None = None,
    on_row: Callable[[TraceRow], None] = lambda row: None,
    on_event: Callable[[float], None] = lambda now_s: None,
) -> None:
    """Drive the core to the end of its budget; each arrival takes one second of the run's clock.

    Arguments: state: new; num_workers: all there at the beginning; choose: takes the jobs of all workers that have any
    and the current version, and says whose oldest job arrives next; compute, on_row, on_event: as for `VirtualCluster`.
    Errors: KeyError when `choose` names a worker without a job.

    Example:
        >>> from asgd.core.budget import Budget
        >>> from asgd.core.methods import make_method
        >>> from asgd.core.schedules import Schedule
        >>> from asgd.core.step_rules import constant
        >>> method, budget = make_method("asynchronous"), Budget(versions=4)
        >>> state = ServerState(method, constant, Schedule(0.1), budget, expected_workers=2)
        >>> rows = []
        >>> run_order(state, 2, lambda jobs, version: 0 if version < 3 else 1, on_row=rows.append)
        >>> [row.delay for row in rows]
        [0, 0, 0, 3]
    """
    compute = compute or Nothing()
    jobs: Jobs = {}

    def handle(event: Event) -> None:
        for action in state.handle(event):
            match action:
                case Assign(worker, number, version):
                    jobs.setdefault(worker, deque()).append((number, version))
                    compute.given(number, version)
                case Cancel(worker, number):
                    jobs[worker] = deque(job for job in jobs[worker] if job[0] != number)
                    if not jobs[worker]:
                        del jobs[worker]
                case Record(row):
                    compute.ended(row.job)
                    on_row(row)
                case Quarantine(worker):
                    jobs.pop(worker, None)
                case Finish():
                    pass
                case _:
                    compute.execute(action)
        on_event(float(state.gradients))

    for worker in range(num_workers):
        handle(Join(worker, 0.0))
    while state.finished is None:
        worker = choose(jobs, state.version)
        number, version = jobs[worker].popleft()
        if not jobs[worker]:
            del jobs[worker]
        result = compute.compute(worker, number)
        now_s = float(state.gradients + 1)
        handle(
            Arrival(
                worker,
                number,
                version,
                result.loss,
                result.samples,
                1.0,
                now_s,
                finite=result.finite,
                distance=result.distance,
                norm=result.norm,
            )
        )
