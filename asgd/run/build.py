"""From a configuration to the objects of a run: the one place where configured names become core and learn objects."""

from __future__ import annotations

from pathlib import Path

import msgspec

from asgd.config import Config, schedule_total
from asgd.core.budget import Budget
from asgd.core.methods import METHODS, make_method
from asgd.core.schedules import Schedule
from asgd.core.state import ServerState
from asgd.core.step_rules import make_rule
from asgd.errors import ConfigError
from asgd.run.board import check_installed
from asgd.run.records import JOBS_PER_INCARNATION
from asgd.run.speeds import job_seconds


def make_state(config: Config, incarnation: int = 0) -> ServerState:
    """The deciding core of a configured run; ConfigError for names and values that the core doesn't know."""
    method, schedule, budget = config.method, config.schedule, config.budget
    return ServerState(
        make_method(method.name, method.options, method.jobs_per_worker),
        make_rule(method.rule, method.rule_options),
        Schedule(
            method.step_size,
            schedule.name,
            total=schedule_total(config),
            warmup=schedule.warmup,
            milestones=tuple(schedule.milestones),
            gamma=schedule.gamma,
            final_factor=schedule.final_factor,
        ),
        Budget(budget.versions, budget.samples, budget.gradients, budget.time_s),
        schedule_over=schedule.over,
        expected_workers=config.cluster.num_workers,
        jobs_per_worker=method.jobs_per_worker,
        first_job=incarnation * JOBS_PER_INCARNATION,
        seed=config.seed,
        queues=METHODS[method.name].queues,
        norm_guard=method.norm_guard,
        quarantine_after=method.quarantine_after,
    )


def validate(config: Config) -> None:
    """Refuse what only the core and the speed profiles know to be wrong, before anything is made; ConfigError."""
    make_state(config)
    check_installed(config)
    if METHODS[config.method.name].answers == "parameters" and not config.method.local_steps:
        raise ConfigError(
            f"method.local_steps = 0: the workers of {config.method.name!r} answer with their parameters after "
            "local steps; allowed is a whole number of at least 1"
        )
    if config.method.norm_guard and METHODS[config.method.name].answers == "parameters":
        raise ConfigError(
            f"method.norm_guard = {config.method.norm_guard:g}: the workers of {config.method.name!r} answer with "
            "their parameters, whose norm says nothing; allowed is 0"
        )
    optimizers = METHODS[config.method.name].optimizers
    if config.optimizer.name not in optimizers:
        raise ConfigError(
            f"optimizer.name = {config.optimizer.name!r}: method {config.method.name!r} is defined with "
            f"{', '.join(optimizers)} only"
        )
    speeds, num_workers = config.cluster.speeds, config.cluster.num_workers
    job_seconds(speeds, worker=0, num_workers=num_workers, job=0, seed=config.seed, now_s=0.0)


# What may change when a run goes on: nothing that the numbers of its first part depend on.
MAY_CHANGE = ("budget", "evaluation", "checkpoints", "recovery", "cluster", "records", "security")
FIXED_IN_CLUSTER = ("threads_per_worker", "autocast")


def resumed(old: Config, new: Config) -> Config:
    """The configuration of a run that was started with `old` and goes on with `new`.

    A schedule keeps its length when the budget grows, so that the step sizes already taken stay those of the
    configuration. The number of workers stays where each has data of its own: another one would be another partition,
    and the mean of the workers' losses another objective. Errors: ConfigError naming the first key that may not change.
    """
    total = schedule_total(old)
    if new.schedule.total == total:  # what this function gave before
        new = msgspec.structs.replace(new, schedule=msgspec.structs.replace(new.schedule, total=old.schedule.total))
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    pairs = [(name, before[name], after[name]) for name in before if name not in MAY_CHANGE]
    fixed = FIXED_IN_CLUSTER if old.task.partition == "iid" else (*FIXED_IN_CLUSTER, "num_workers")
    pairs += [(f"cluster.{name}", before["cluster"][name], after["cluster"][name]) for name in fixed]
    for name, was, wanted in pairs:
        if isinstance(was, dict):
            changed = next((key for key in was if was[key] != wanted[key]), None)
            if changed is None:
                continue
            name, was, wanted = f"{name}.{changed}", was[changed], wanted[changed]
        if was != wanted:
            raise ConfigError(
                f"{name} = {wanted!r}: the run was started with {was!r}, and a run that goes on may only change "
                f"{', '.join(MAY_CHANGE)} (without {', '.join(fixed)})"
            )
    return msgspec.structs.replace(new, schedule=msgspec.structs.replace(new.schedule, total=total))


def run_name(path: Path) -> str:
    """What a run is called: the last part of its directory."""
    return path.absolute().name
