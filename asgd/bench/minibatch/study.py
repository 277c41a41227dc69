"""The whole benchmark: tune in virtual time, confirm for real, measure with fresh seeds; every piece kept at once."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

import msgspec

from asgd.bench.minibatch.measuring import Job, Runner, run_job
from asgd.bench.minibatch.plan import Contender, Plan
from asgd.bench.minibatch.results import RESULTS, Cell, Purpose, RealRun, Record
from asgd.bench.minibatch.tuning import Choice, Wanted, choose, confirmed, missing
from asgd.config import to_toml
from asgd.errors import Interrupted
from asgd.run.signals import StopRequests
from asgd.sim.parallel import Done, Work, simulate_all
from asgd.sim.result_files import write_result
from asgd.sim.tuning import Values

Simulator = Callable[[Work, StopRequests], Generator[Done, None, None]]
# What a run takes beside its budget, and a simulation in all, until one has said so.
START_S, SIMULATION_S = 6.0, 2.0
KEEP_EVERY_S = 2.0  # between two writings of the file while simulations end, and at their end; after each real run


class Step(NamedTuple):
    """Where a benchmark is: what it does, how many pieces are done of those that are known to be needed, the seconds
    that are left by what the pieces have taken so far, and a line about the piece that has just ended, if any.
    """

    doing: str
    done: int
    total: int
    left_s: float
    line: str | None = None


class Study:
    """A benchmark at work.

    Arguments: plan; record: what is known, extended as it goes on; folder: of results.json and runs/; data_root; jobs:
    simulations at a time; stops: requests to stop; hear: takes each step; runner, simulator: do the work.
    """

    def __init__(
        self,
        plan: Plan,
        record: Record,
        folder: Path,
        data_root: Path,
        *,
        jobs: int,
        stops: StopRequests,
        hear: Callable[[Step], None] = lambda step: None,
        runner: Runner = run_job,
        simulator: Simulator = simulate_all,
    ) -> None:
        self.plan, self.record, self._folder, self._data_root = plan, record, folder, data_root
        self._jobs, self._stops, self._hear = jobs, stops, hear
        self._runner, self._simulator = runner, simulator
        self._began_s, self._seconds = time.monotonic(), record.seconds
        self._beside_s: list[float] = []  # what runs took beside their budgets
        self._simulated_s, self._simulated = 0.0, 0
        self._to_come = to_come(plan, record)

    def run(self) -> None:
        """Do all that is missing. Errors: Interrupted when asked to stop, with what was done kept; RunError."""
        self._tell("beginning")
        self._tune()
        for setting in self.plan.settings:
            while (job := next_job(self.plan, self.record, setting)) is not None:
                self._real(job)
        self.record.complete = True
        self._keep()

    def _tune(self) -> None:
        """Simulate what is missing in all settings at once, until no grid has to be widened any more."""
        emulated = [setting for setting in self.plan.settings if not self.plan.is_real(setting)]
        while wanted := [one for setting in emulated for one in missing(self.plan, self.record, setting)]:
            self._simulate(wanted)

    def _simulate(self, wanted: list[Wanted]) -> None:
        plan = self.plan
        work = Work(
            config=to_toml(plan.config),
            overrides=[plan.simulated_overrides(*one) for one in wanted],
            goal=plan.protocol.goal,
            data_root=str(self._data_root),
            jobs=self._jobs,
        )
        last_s = kept_s = time.monotonic()
        try:
            with contextlib.closing(self._simulator(work, self._stops)) as results:
                for count, done in enumerate(results, start=1):
                    self.record.cells.append(_cell(wanted[done.index], done))
                    now_s = time.monotonic()
                    self._simulated, self._simulated_s = self._simulated + 1, self._simulated_s + now_s - last_s
                    last_s = now_s
                    if now_s - kept_s >= KEEP_EVERY_S:
                        self._keep()
                        kept_s = now_s
                    self._tell("tuning in virtual time", simulations=len(wanted) - count)
        finally:
            self._keep()
        if self._stops.asked:
            raise Interrupted(self._stops.take() or "interrupted")

    def _real(self, job: Job) -> None:
        if self._stops.asked:
            raise Interrupted(self._stops.take() or "interrupted")
        self._tell(_doing(self.plan, job))
        began_s, load_before = time.monotonic(), os.getloadavg()[0]
        found = self._runner(self.plan, job, self._folder / "runs", self._data_root, self._stops)
        found = msgspec.structs.replace(found, load_before=load_before, load_after=os.getloadavg()[0])
        self._beside_s.append(time.monotonic() - began_s - job.budget_s)
        if job.purpose == "tune":
            self.record.cells.append(found.cell(self.plan.protocol.goal))
        self.record.runs.append(found)
        self._keep()
        self._tell(_doing(self.plan, job), _line(self.plan, job, found))

    def _keep(self) -> None:
        self.record.seconds = self._seconds + time.monotonic() - self._began_s
        write_result(self._folder / RESULTS, self.record)

    def _tell(self, doing: str, line: str | None = None, simulations: int | None = None) -> None:
        """Tell where things are; `simulations` that are left, counted here if it isn't said."""
        if simulations is None:
            self._to_come = to_come(self.plan, self.record)
        simulations = self._to_come.simulations if simulations is None else simulations
        each_s = self._simulated_s / self._simulated if self._simulated else SIMULATION_S
        beside_s = sum(self._beside_s) / len(self._beside_s) if self._beside_s else START_S
        left_s = simulations * each_s + self._to_come.budgets_s + self._to_come.runs * beside_s
        done = len(self.record.cells) + sum(run.purpose != "tune" for run in self.record.runs)
        self._hear(Step(doing, done, done + simulations + self._to_come.runs, left_s, line))


def _cell(one: Wanted, done: Done) -> Cell:
    found = done.measured
    return Cell(
        setting=one.setting,
        contender=one.contender.key,
        values=one.values,
        seed=one.seed,
        score=found.score,
        final=found.final,
        diverged=found.diverged,
        gradients=found.gradients,
        time_s=found.time_s,
    )


def next_job(plan: Plan, record: Record, setting: str) -> Job | None:
    """The next real run that a setting needs; None when there is none. Its simulations are all there."""
    if plan.is_real(setting):
        for one in missing(plan, record, setting):
            return _job(plan, "tune", *one)
    else:
        for contender in plan.tuned if plan.protocol.confirm else []:
            choice = choose(plan, record, setting, contender)
            for values in choice.candidates:
                seed = plan.tuning_seeds[0]
                if record.run("confirm", setting, contender.key, values, seed) is None:
                    return _job(plan, "confirm", setting, contender, values, seed, choice.confirm_s)
    for place, seed in enumerate(plan.fresh_seeds):
        for contender in rotated(plan.contenders, place):
            values = final_values(plan, record, setting, contender)
            if record.run("measure", setting, contender.key, values, seed) is None:
                return _job(plan, "measure", setting, contender, values, seed)
    return None


def rotated(contenders: list[Contender], places: int) -> list[Contender]:
    """The contenders in the order of a seed: each seed begins with another one, so that none always comes first. Who
    comes after whom stays the same otherwise.

    Example:
        >>> rotated(["a", "b", "c"], 1)
        ['b', 'c', 'a']
    """
    places %= len(contenders)
    return contenders[places:] + contenders[:places]


def final_values(plan: Plan, record: Record, setting: str, contender: Contender) -> Values:
    """The point that a contender is measured with: its tuning and confirming runs are all there."""
    contender = plan.tuned_as(contender)
    choice = choose(plan, record, setting, contender)
    if plan.is_real(setting) or not plan.protocol.confirm:
        return choice.values
    return confirmed(choice, confirming(plan, record, setting, contender, choice), plan.protocol.goal)


def confirming(plan: Plan, record: Record, setting: str, contender: Contender, choice: Choice) -> list[RealRun]:
    """The confirming runs that are there, in the order of the candidates."""
    seed = plan.tuning_seeds[0]
    found = [record.run("confirm", setting, contender.key, values, seed) for values in choice.candidates]
    return [run for run in found if run is not None]


def _job(
    plan: Plan,
    purpose: Purpose,
    setting: str,
    contender: Contender,
    values: Values,
    seed: int,
    budget_s: float | None = None,
) -> Job:
    return Job(
        purpose=purpose,
        setting=setting,
        contender=contender,
        values=values,
        seed=seed,
        budget_s=plan.config.budget.time_s if budget_s is None else budget_s,
    )


class ToCome(NamedTuple):
    """What is still to be done: simulations, real runs and the sum of their budgets; guessed where tuning decides."""

    simulations: int
    runs: int
    budgets_s: float


def to_come(plan: Plan, record: Record) -> ToCome:
    """What a benchmark still needs by what is known."""
    simulations, budgets = 0, []
    time_s = plan.config.budget.time_s
    for setting in plan.settings:
        wanted = missing(plan, record, setting)
        if plan.is_real(setting):
            budgets += [time_s] * len(wanted)
        else:
            simulations += len(wanted)
            budgets += _confirming_to_come(plan, record, setting, tuned=not wanted)
        measured = [run for run in record.runs if run.setting == setting and run.purpose == "measure"]
        budgets += [time_s] * (len(plan.contenders) * plan.protocol.seeds - len(measured))
    return ToCome(simulations, len(budgets), sum(budgets))


def _confirming_to_come(plan: Plan, record: Record, setting: str, tuned: bool) -> list[float]:
    """The budgets of the confirming runs that a setting still needs."""
    if not plan.protocol.confirm:
        return []
    if not tuned:
        return [plan.config.budget.time_s] * 3 * len(plan.tuned)
    budgets = []
    for contender in plan.tuned:
        choice = choose(plan, record, setting, contender)
        there = len(confirming(plan, record, setting, contender, choice))
        budgets += [choice.confirm_s] * (len(choice.candidates) - there)
    return budgets


def _doing(plan: Plan, job: Job) -> str:
    under = f" under {job.setting}" if len(plan.settings) > 1 else ""
    what = {"tune": "tuning for real", "confirm": "confirming", "measure": f"measuring with seed {job.seed}"}
    return f"{what[job.purpose]}: {job.contender.label}{under}"


def _line(plan: Plan, job: Job, run: RealRun) -> str:
    values = ", ".join(f"{key.rpartition('.')[2]} {value:.4g}" for key, value in job.values.items())
    text = f"{_doing(plan, job)}, {values}: "
    if run.diverged:
        return f"{text}diverged"
    reached = run.reached(plan.protocol.goal)
    text += f"{run.gradients / run.counted_s:.4g} gradients/s"
    if plan.protocol.target is not None:
        at = f"after {reached.time_s:.4g} s" if reached else "not reached"
        text += f", {plan.protocol.metric} {plan.protocol.target:g} {at}"
    final = run.final
    return text if final is None else f"{text}, {plan.protocol.metric} {final:.4g} at the end"
