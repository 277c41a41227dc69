"""Cores with one fault each, to see that the exploration finds it: a property that nothing can break proves nothing.

Each function takes a new core and returns it with the fault.
"""

from __future__ import annotations

from asgd.core.actions import Apply, Record
from asgd.core.events import Join, Leave, Resume
from asgd.core.ledger import Job
from asgd.core.methods.base import Decision, UseNot
from asgd.core.state import ServerState


def counts_an_answer_twice(state: ServerState) -> ServerState:
    """An answer to a job that has ended is taken as if the job were outstanding."""
    refused = state._why_refused

    def why_refused(event):
        ledger = state.ledger
        if event.job < ledger.next_job and event.job not in ledger.outstanding:
            ledger.outstanding[event.job] = Job(event.job, event.worker, event.version)
            ledger.num_jobs_of[event.worker] = ledger.num_jobs_of.get(event.worker, 0) + 1
            ledger.read_version_sum += event.version
        return refused(event)

    state._why_refused = why_refused
    return state


def takes_anybodys_answer(state: ServerState) -> ServerState:
    """It doesn't look whose job it was."""
    refused = state._why_refused
    state._why_refused = lambda event: refused(
        event._replace(worker=job.worker) if (job := state.ledger.outstanding.get(event.job)) else event
    )
    return state


def takes_any_version(state: ServerState) -> ServerState:
    """It doesn't look at which version the answer was computed."""
    refused = state._why_refused
    state._why_refused = lambda event: refused(
        event._replace(version=job.read_version) if (job := state.ledger.outstanding.get(event.job)) else event
    )
    return state


def does_not_count_refusals(state: ServerState) -> ServerState:
    """A refused answer leaves no trace."""
    refused = state._why_refused

    def why_refused(event):
        reason = refused(event)
        state.refused -= reason is not None
        return reason

    state._why_refused = why_refused
    return state


def forgets_the_jobs_of_the_dead(state: ServerState) -> ServerState:
    """They are taken out of the books, and no line says so."""

    def leave(event, actions):
        state._members.pop(event.worker, None)
        for job in [job for job in state.outstanding if job.worker == event.worker]:
            state.ledger.take(job.job)
            state.method.lost(state, job.worker, job.job)

    state._handlers[Leave] = leave
    return state


def leaves_the_jobs_of_the_dead(state: ServerState) -> ServerState:
    """They stay outstanding."""
    state._handlers[Leave] = lambda event, actions: state._members.pop(event.worker, None)
    return state


def forgets_what_was_in_flight(state: ServerState) -> ServerState:
    """At a restart the outstanding jobs are dropped."""

    def resume(event, actions):
        for number in list(state.ledger.outstanding):
            state.ledger.take(number)

    state._handlers[Resume] = resume
    return state


def numbers_jobs_anew(state: ServerState) -> ServerState:
    """A restarted server gives numbers that were in use before."""
    restore = state.restore
    state.restore = lambda plain, first_job, keep=False: restore(plain, 0, keep=keep)
    return state


def forgets_a_cancelled_job(state: ServerState) -> ServerState:
    """A cancelled job has no line."""
    state._cancel = lambda number, now_s, actions: state._take(number)
    return state


def ages_one_too_many(state: ServerState) -> ServerState:
    """An update ages the job that made it, too. (The ledger is made anew with each restored state.)"""
    handle = state.handle

    def counted(event):
        version = state.version
        actions = handle(event)
        state.ledger.aging_sum += state.version - version
        return actions

    state.handle = counted
    return state


def gives_newcomers_nothing(state: ServerState) -> ServerState:
    """Who joins a running run waits for ever."""
    join = state._handlers[Join]

    def joined(event, actions):
        assign, state._assign = state._assign, lambda workers, now_s, actions: None
        join(event, [] if state.begun else actions)
        state._assign = assign
        if not state.begun and len(state.workers) >= state.expected_workers:
            state._begin(event, actions)

    state._handlers[Join] = joined
    return state


def waits_for_the_dead(state: ServerState) -> ServerState:
    """The method never hears that a job was lost."""
    state.method.lost = lambda view, worker, job: Decision()
    return state


def begins_without_the_others(state: ServerState) -> ServerState:
    """After a restart the method gives work to one worker only."""
    begin = state.method.begin

    def begun(view):
        decision = begin(view)
        return decision._replace(assign=list(decision.assign)[:1])

    state.method.begin = begun
    return state


def applies_a_gradient_twice(state: ServerState) -> ServerState:
    """The driver is told so; the books say once."""
    handle = state.handle
    state.handle = lambda event: [
        again for action in handle(event) for again in [action] * (1 + (type(action) is Apply))
    ]
    return state


def writes_that_all_was_discarded(state: ServerState) -> ServerState:
    """The lines of the trace say so."""
    handle = state.handle

    def handled(event):
        actions = handle(event)
        for action in actions:
            if type(action) is Record and action.row.action == "apply":
                action.row.action = "discard"
        return actions

    state.handle = handled
    return state


def keeps_something_to_itself(state: ServerState) -> ServerState:
    """It decides by what is not in its saved state: the third answer is discarded."""
    arrived = state.method.arrived
    answers = []

    def counted(view, answer):
        decision = arrived(view, answer)
        answers.append(answer)
        return decision._replace(use=UseNot("the third")) if len(answers) == 3 else decision

    state.method.arrived = counted
    return state
