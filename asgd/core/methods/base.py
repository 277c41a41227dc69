"""The interface of a server method: what to do on an arrival, and who gets work next.

A method sees a read-only `View` of the run and answers with a `Decision`. It never touches tensors, jobs or the
version: `ServerState` carries its decisions out and keeps the books. To add a method: one file beside this one, its
test, one line in `methods/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from asgd.core.actions import Correction, StepSize
from asgd.core.assignment import everybody, newcomer


class UseApply(NamedTuple):
    """Take a step with this gradient, corrected and then shortened to the norm `clip`, where these are given."""

    step_size: StepSize
    clip: float | None = None
    correction: Correction | None = None


class UseMix(NamedTuple):
    """Mix the worker's parameters into the model with this weight (its answer holds parameters, not a gradient)."""

    weight: float


class UseAccumulate(NamedTuple):
    """Add weight times this gradient to the slot; `kept`: the slot is one of a table, which several steps use."""

    slot: int
    weight: float = 1.0
    kept: bool = False


class UseStore(NamedTuple):
    """Put this gradient into the slot, in place of what was there."""

    slot: int


class UseNot(NamedTuple):
    """Discard this gradient."""

    reason: str


Use = UseApply | UseMix | UseAccumulate | UseStore | UseNot


class TakeStep(NamedTuple):
    """After that, take a step with the sum of scale times slot over `parts`; the slots are then empty unless `keep`."""

    parts: tuple[tuple[int, float], ...]
    step_size: StepSize
    keep: bool = False


class Decision(NamedTuple):
    """What happens now: to the gradient (if there is one), to the model, and which workers get a new job at the
    version after it.

    `cancel` names outstanding jobs that are not wanted any more: they are recorded as discarded after the step and
    before the assignments. A worker that stands twice in `assign` gets two jobs.
    """

    use: Use | None = None
    step: TakeStep | None = None
    cancel: Iterable[int] = ()
    assign: Iterable[int] = ()


class Answer(NamedTuple):
    """An arrival as a method sees it; `refusal` says why it must not be used, None when it may be; `seconds` is the
    time that the job took on the worker, emulated waiting included; `distance` is ||x_t - x_{t - tau}|| for methods
    that need it.
    """

    worker: int
    job: int
    delay: int
    samples: int
    refusal: str | None
    seconds: float = 0.0
    distance: float | None = None


class Outstanding(Protocol):
    """An outstanding job as a method sees it."""

    @property
    def job(self) -> int: ...
    @property
    def worker(self) -> int: ...
    @property
    def read_version(self) -> int: ...


class View(Protocol):
    """What a method may look at."""

    @property
    def version(self) -> int:
        """Updates so far."""

    @property
    def concurrency(self) -> int:
        """Jobs outstanding now (the job being handled is not among them any more)."""

    @property
    def max_concurrency(self) -> int:
        """The largest number of jobs outstanding at once so far: tau_C."""

    @property
    def workers(self) -> Collection[int]:
        """The workers that are there, in the order in which they joined."""

    @property
    def jobs_per_worker(self) -> int:
        """How many jobs a worker may have at once."""

    @property
    def outstanding(self) -> Collection[Outstanding]:
        """The jobs outstanding now, in the order in which they were given."""

    def num_jobs(self, worker: int) -> int:
        """How many jobs the worker has now."""

    def draw(self, purpose: str, counter: int, bound: int) -> int:
        """A number from 0 to bound - 1, uniform, fixed by the run's seed, the purpose and the counter."""

    def step_size(self, delay: int) -> StepSize:
        """The scheduled step size at this version, and what the step-size rule makes of it for a gradient of this
        delay: that of the arrival being handled, or 0.
        """


class Method(Protocol):
    """A server method. All state that it keeps must go through `state` and `restore`, so that a run can be resumed
    and replayed.
    """

    name: str

    def begin(self, view: View) -> Decision:
        """The run begins with the workers that are there."""

    def joined(self, view: View, worker: int) -> Decision:
        """A worker has joined the running run."""

    def arrived(self, view: View, answer: Answer) -> Decision:
        """A gradient has arrived; the decision must say how it is used."""

    def lost(self, view: View, worker: int, job: int) -> Decision:
        """A job is gone with its worker (which is not among the workers any more).

        With nobody there (all have died, or the server restarts) there is no step: jobs are lost one by one then, and a
        step would be made of whichever part of the round was in. What was accumulated stays for those who join.
        """

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""

    def restore(self, plain: dict[str, Any]) -> None:
        """Take over what `state` gave."""


class AlwaysBusy:
    """For a method under which every worker that is there has all of its jobs, whatever happens: all begin at once, a
    newcomer begins when it comes, and a job that is lost with its worker changes nothing for the others.
    """

    def begin(self, view: View) -> Decision:
        return Decision(assign=everybody(view))

    def joined(self, view: View, worker: int) -> Decision:
        return Decision(assign=newcomer(view, worker))

    def lost(self, view: View, worker: int, job: int) -> Decision:
        return Decision()


class Stateless:
    """For a method that keeps nothing from one event to the next: there is nothing to save."""

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, plain: dict[str, Any]) -> None:
        pass


@dataclass(frozen=True)
class MethodInfo:
    """A line of the registry: the method and what a user needs to know to choose it."""

    make: type[Any]
    summary: str
    needs: str
    use_when: str
    reference: str
    max_jobs_per_worker: int | None = None
    queues: bool = False  # workers may be given any number of jobs, whatever `jobs_per_worker` says
    options: str = ""
    # By what fast workers weigh more than slow ones, a bias if their data differ: "method" (it can use more gradients
    # of theirs), "rule" (it applies the configured step-size rule to the delays of single workers); () if by nothing.
    favours_fast: tuple[str, ...] = ("method",)
    fair_with: tuple[str, object] | None = None  # an option and its value with which it favours nobody after all
    # By what an update isn't in proportion to its step size any more, where that says how much a gradient counts:
    # "momentum", "weight_decay", "adam" (both kinds).
    weights_lost_by: tuple[str, ...] = ()
    needs_read_parameters: bool = False  # the driver keeps what outstanding jobs were given, for corrections
    needs_distance: bool = False  # the driver keeps it too, and measures `distance` at each arrival
    optimizers: tuple[str, ...] = ("sgd", "adam", "adamw")  # those that it is defined with
    answers: str = "gradient"  # what a worker sends: "gradient", or "parameters" after its local steps (for UseMix)
