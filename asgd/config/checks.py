"""Which values a configuration may hold: one rule for each key, then what the keys must be to each other.

Names of methods and step-size rules (asgd.core) and of speed profiles (asgd.run.speeds) are checked where those are;
here they only have to be something.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, get_args

from asgd.config.schema import Config, Evaluate, OptimizerName, PartitionName, RecoveryMode, ScheduleName, ScheduleUnit

LARGEST = 2**63 - 1  # what messages and records can carry


class Rule(NamedTuple):
    """What one key may hold: in words for the sentence of an error, and as a function of a value of the right type."""

    allowed: str
    holds: Callable[[Any], bool]


class Problem(NamedTuple):
    """A key that can't be as it is, and why; `needs_value` says whether the sentence should show its value."""

    key: str
    why: str
    needs_value: bool = True


def _whole(low: int) -> Rule:
    return Rule(f"a whole number of at least {low}", lambda value: low <= value <= LARGEST)


def _number(low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> Rule:
    """A finite number from `low` to `high`; `above` leaves out the lower end, `below` the upper one."""
    if high == math.inf:
        words = f"a finite number above {low:g}" if above else f"a finite number of at least {low:g}"
    else:
        words = f"a number {'above' if above else 'from'} {low:g} {'to below' if below else 'to'} {high:g}"

    def holds(value: float) -> bool:
        return (
            math.isfinite(value)
            and (low < value if above else low <= value)
            and (value < high if below else value <= high)
        )

    return Rule(words, holds)


def _one_of(literal: Any) -> Rule:
    *names, last = (f'"{name}"' for name in get_args(literal))
    return Rule(f"{', '.join(names)} or {last}", lambda value: True)


def _matching(words: str, *patterns: str) -> Rule:
    pattern = re.compile("|".join(f"(?:{p})" for p in patterns))
    return Rule(words, lambda value: pattern.fullmatch(value) is not None)


def _is_rising(values: list[int]) -> bool:
    return all(low < high for low, high in zip([0, *values], values, strict=False))


def _is_address(value: str) -> bool:
    match = re.fullmatch(r"tcp://(?:\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):(\d{1,5})", value)
    return value == "ipc" or re.fullmatch(r"ipc://\S.*", value) is not None or bool(match and int(match[1]) <= 65535)


_FLAG = Rule("true or false", lambda value: True)
_TABLE = Rule("a table of names and values", lambda value: True)
_NAME = Rule("a name, a string that isn't empty", lambda value: bool(value.strip()))

RULES: dict[str, Rule] = {
    "seed": _whole(0),
    "task.function": _matching(
        "a built-in task's name, path/to/file.py:function or package.module:function", r"\w+", r".*[^\s:]:[^\W\d]\w*"
    ),
    "task.options": _TABLE,
    "task.batch_size": _whole(1),
    "task.micro_batches": _whole(1),
    "task.download": _FLAG,
    "task.partition": _one_of(PartitionName),
    "task.partition_options": _TABLE,
    "method.name": _NAME,
    "method.step_size": _number(0, above=True),
    "method.rule": _NAME,
    "method.rule_options": _TABLE,
    "method.options": _TABLE,
    "method.jobs_per_worker": _whole(1),
    "method.local_steps": _whole(0),
    "method.local_step_size": _number(0, above=True),
    "method.norm_guard": Rule("0 (none) or a finite number above 1", lambda value: value == 0 or 1 < value < math.inf),
    "method.quarantine_after": _whole(0),
    "optimizer.name": _one_of(OptimizerName),
    "optimizer.momentum": _number(0, 1, below=True),
    "optimizer.nesterov": _FLAG,
    "optimizer.weight_decay": _number(0),
    "optimizer.betas": Rule(
        "two numbers from 0 to below 1, such as [0.9, 0.999]", lambda value: all(0 <= beta < 1 for beta in value)
    ),
    "optimizer.eps": _number(0, above=True),
    "optimizer.clip_norm": _number(0),
    "schedule.name": _one_of(ScheduleName),
    "schedule.over": _one_of(ScheduleUnit),
    "schedule.total": _whole(0),
    "schedule.warmup": _whole(0),
    "schedule.milestones": Rule(
        "a list of rising whole numbers above 0", lambda value: _is_rising(value) and all(v <= LARGEST for v in value)
    ),
    "schedule.gamma": _number(0, 1, above=True),
    "schedule.final_factor": _number(0, 1),
    "cluster.num_workers": _whole(1),
    "cluster.address": Rule('"ipc", ipc://path or tcp://host:port with a port of at most 65535', _is_address),
    "cluster.device": _matching('"auto", "cpu", "cuda" or "cuda:N"', "auto", "cpu", "cuda", r"cuda:\d{1,3}"),
    "cluster.threads_per_worker": _whole(1),
    "cluster.autocast": _FLAG,
    "cluster.max_restarts": _whole(0),
    "cluster.max_server_restarts": _whole(0),
    "cluster.start_timeout_s": _number(0, above=True),
    "cluster.server_timeout_s": _number(0, above=True),
    "cluster.min_lease_s": _number(0, above=True),
    "cluster.max_lease_s": _number(0, above=True),
    "cluster.speeds.profile": _NAME,
    "cluster.speeds.seconds": _number(0, above=True),
    "cluster.speeds.factor": _number(1),
    "cluster.speeds.communication_s": _number(0),
    "cluster.speeds.period_s": _number(0, above=True),
    "cluster.speeds.outage_s": _number(0),
    "cluster.speeds.alpha": _number(1, above=True),
    "budget.versions": _whole(0),
    "budget.samples": _whole(0),
    "budget.gradients": _whole(0),
    "budget.time_s": _number(0),
    "evaluation.evaluate": _one_of(Evaluate),
    "evaluation.every_versions": _whole(0),
    "evaluation.every_samples": _whole(0),
    "evaluation.every_s": _number(0),
    "evaluation.batch_size": _whole(1),
    "checkpoints.every_versions": _whole(0),
    "checkpoints.every_s": _number(0),
    "checkpoints.keep": _whole(1),
    "recovery.mode": _one_of(RecoveryMode),
    "recovery.sync_s": _number(0),
    "recovery.grace_s": _number(0),
    "records.tensorboard": _FLAG,
    "records.report": _FLAG,
    "security.keys": Rule("a directory's path", lambda value: "\0" not in value),
    "security.key": _matching(
        "a name of letters, digits, _, . and - (64 at most)", r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
    ),
    "security.insecure": _FLAG,
    "security.max_peers": _whole(0),
    "security.max_refusals": _whole(1),
}


def value_at(config: Config, key: str) -> Any:
    """Return the value of a dotted key of the schema."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def schedule_total(config: Config) -> int:
    """Return the length of the schedule in its own unit: `schedule.total`, else the budget in that unit, else 0.

    Example:
        >>> from asgd.config import BudgetConfig
        >>> schedule_total(Config(budget=BudgetConfig(samples=1000)))
        1000
    """
    budget = config.budget.versions if config.schedule.over == "versions" else config.budget.samples
    return config.schedule.total or budget


def find_problems(config: Config) -> Iterator[Problem]:
    """Yield everything that a configuration of the right types may not be, single keys first."""
    for key, rule in RULES.items():
        if not rule.holds(value_at(config, key)):
            yield Problem(key, f"allowed is {rule.allowed}")
    yield from _task_problems(config)
    yield from _method_problems(config)
    yield from _optimizer_problems(config)
    yield from _schedule_problems(config)
    yield from _running_problems(config)


def _task_problems(config: Config) -> Iterator[Problem]:
    if config.task.partition == "iid" and config.task.partition_options:
        yield Problem("task.partition_options", 'task.partition = "iid" has no options; allowed is {}')


def _method_problems(config: Config) -> Iterator[Problem]:
    if config.method.name == "minibatch" and config.method.jobs_per_worker != 1:
        yield Problem(
            "method.jobs_per_worker", 'method.name = "minibatch" gives each worker one job a round; allowed is 1'
        )


def _optimizer_problems(config: Config) -> Iterator[Problem]:
    optimizer = config.optimizer
    if optimizer.name != "sgd" and optimizer.momentum:
        yield Problem("optimizer.momentum", f'only "sgd" has momentum, "{optimizer.name}" has betas; allowed is 0')
    if optimizer.name != "sgd" and optimizer.nesterov:
        yield Problem("optimizer.nesterov", f'only "sgd" has it, "{optimizer.name}" has not; allowed is false')
    if optimizer.nesterov and not optimizer.momentum:
        yield Problem("optimizer.nesterov", "it needs optimizer.momentum above 0")


def _schedule_problems(config: Config) -> Iterator[Problem]:
    schedule, total = config.schedule, schedule_total(config)
    if schedule.name == "cosine" and not total:
        yield Problem(
            "schedule.total",
            f'"cosine" must know where it ends; set it, or budget.{schedule.over}, to a number above 0',
        )
    elif schedule.name == "cosine" and total <= schedule.warmup:
        source = "schedule.total" if schedule.total else f"budget.{schedule.over}"
        yield Problem(
            "schedule.warmup", f'"cosine" needs a warm-up shorter than its total; allowed is below {source} = {total}'
        )
    if schedule.name == "step" and not schedule.milestones:
        yield Problem("schedule.milestones", f'"step" needs at least one milestone, in {schedule.over}')
    if schedule.name != "step" and schedule.milestones:
        yield Problem(
            "schedule.milestones", f'only schedule.name = "step" has milestones, not "{schedule.name}"; allowed is []'
        )
    if schedule.name == "step" and schedule.total and schedule.milestones and schedule.milestones[-1] >= schedule.total:
        yield Problem("schedule.milestones", f"they must lie below schedule.total = {schedule.total}")


def _running_problems(config: Config) -> Iterator[Problem]:
    speeds, budget = config.cluster.speeds, config.budget
    if config.cluster.max_lease_s < config.cluster.min_lease_s:
        yield Problem(
            "cluster.max_lease_s", f"allowed is at least cluster.min_lease_s = {config.cluster.min_lease_s:g}"
        )
    if speeds.profile == "outages" and speeds.outage_s >= speeds.period_s:
        yield Problem("cluster.speeds.outage_s", f"allowed is less than cluster.speeds.period_s = {speeds.period_s:g}")
    if not (budget.versions or budget.samples or budget.gradients or budget.time_s):
        yield Problem(
            "budget", "a run needs an end; set at least one of versions, samples, gradients and time_s above 0", False
        )
