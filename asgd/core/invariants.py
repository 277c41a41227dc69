"""What must hold in a run's state after every event."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asgd.core.state import ServerState


def problems(state: ServerState) -> list[str]:
    """Every invariant of the state and its books that doesn't hold, as sentences; O(outstanding)."""
    ledger = state.ledger
    found = ledger.problems()
    if not state.finished and any(worker not in state.workers for worker in ledger.num_jobs_of):
        found.append("a worker that is not there has a job")
    if not state.queues and any(count > state.jobs_per_worker for count in ledger.num_jobs_of.values()):
        found.append(f"a worker has more than {state.jobs_per_worker} jobs")
    if state.rows != ledger.num_used + ledger.num_discarded + ledger.num_lost:
        found.append("lines in the trace differ from jobs used, discarded and lost")
    if state.gradients + state.cancelled != ledger.num_used + ledger.num_discarded:
        found.append("gradients differ from jobs used and discarded")
    return found
