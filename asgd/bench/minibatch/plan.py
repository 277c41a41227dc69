"""What a benchmark against mini-batch SGD compares, and by which protocol: the `[benchmark]` table, as data.

A benchmark's file is a run's configuration with one more table, `[benchmark]`. From both comes the `Plan`; nothing here
runs anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

import asgd
from asgd.bench.ddp import check as check_ddp
from asgd.config import Config, load_config, load_with_table
from asgd.core.methods import METHODS
from asgd.core.step_rules import RULES
from asgd.errors import ConfigError
from asgd.run.build import validate
from asgd.run.speeds import PROFILES
from asgd.sim.tune import octaves
from asgd.sim.tuning import STEP_SIZE, Goal, Values, overrides_of

BASELINE = "minibatch"
DDP = "ddp"
USUAL = ("asynchronous:constant", "asynchronous:scale", BASELINE)
PRESETS = ("quick", "cifar10", "stragglers", "heterogeneous")
FIRST_FRESH_SEED = 100  # above the configured one: measured seeds are none that a step size was chosen by
OWN_KEYS = ("method.name", "method.rule", "method.rule_options", "method.options", STEP_SIZE, "seed")
# What makes all runs alike: nothing is evaluated, and no checkpoint written, while the clock runs.
OFF_THE_CLOCK = ["evaluation.evaluate=after", "checkpoints.every_versions=0", "checkpoints.every_s=0"]


class Protocol(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[benchmark]`: the contenders, what they are compared by, and how they are tuned.

    Attributes:
        methods: the contenders, each "name" or "name:rule" (without a rule: `method.rule`); mini-batch SGD, to which
            all are compared, is added if it isn't there.
        options: by a method's name, its `method.options`.
        ddp: whether PyTorch's DistributedDataParallel does the same work too.
        metric, target: see `asgd.sim.tuning.Goal`; without a target, the final value of the metric is what counts.
        lowest, highest, per_octave: step sizes 2^(k/per_octave), the same grid for all contenders.
        widen: how often the grid of all is made an octave longer where some contender's best one is at its edge, >= 0.
        also: further keys with the values to tune along, for all contenders.
        tuning_seeds: of every point of the grid, >= 1.
        tuning_every_samples: between two evaluations of a simulation that tunes (0: `evaluation`'s own).
        confirm: whether the best point and its two neighbours are run for real, and the best of these is measured.
        seeds: measured, >= 1; other ones than those of tuning.
        profiles: of `cluster.speeds`: the whole benchmark is done under each (none: the configured one).
    """

    methods: list[str] = msgspec.field(default_factory=lambda: list(USUAL))
    options: dict[str, dict[str, Any]] = {}
    ddp: bool = False
    metric: str = "test_accuracy"
    target: float | None = None
    lowest: float = 2.0**-4
    highest: float = 4.0
    per_octave: int = 2
    widen: int = 2
    also: dict[str, list[Any]] = {}
    tuning_seeds: int = 2
    tuning_every_samples: int = 0
    confirm: bool = True
    seeds: int = 3
    profiles: list[str] = []

    @property
    def goal(self) -> Goal:
        """What a run is scored by when step sizes are tuned."""
        return Goal(metric=self.metric, score="final" if self.target is None else "time", target=self.target)

    @property
    def step_sizes(self) -> list[float]:
        """The grid before it is widened."""
        return octaves(self.lowest, self.highest, self.per_octave)


class Contender(msgspec.Struct, frozen=True):
    """One method with its rule; `key` names it in results: "name:rule", or "minibatch", "ddp"."""

    key: str
    method: str
    rule: str

    @property
    def label(self) -> str:
        """As tables and figures show it."""
        if self.key == DDP:
            return "PyTorch DDP"
        return "mini-batch" if self.key == BASELINE else self.key.replace(":", ", ")


class Plan(msgspec.Struct, frozen=True):
    """A checked benchmark: the configuration of all runs, the protocol, the contenders, the profiles of speeds."""

    name: str
    config: Config
    protocol: Protocol
    contenders: list[Contender]
    settings: list[str]

    @property
    def tuned(self) -> list[Contender]:
        """The contenders whose step size is tuned: DDP makes the same update as mini-batch SGD, and takes its one."""
        return [contender for contender in self.contenders if contender.key != DDP]

    @property
    def baseline(self) -> Contender:
        """Mini-batch SGD, to which all are compared."""
        return next(contender for contender in self.contenders if contender.key == BASELINE)

    def tuned_as(self, contender: Contender) -> Contender:
        """The contender whose tuning counts for this one."""
        return self.baseline if contender.key == DDP else contender

    @property
    def tuning_seeds(self) -> list[int]:
        return [self.config.seed + i for i in range(self.protocol.tuning_seeds)]

    @property
    def fresh_seeds(self) -> list[int]:
        return [self.config.seed + FIRST_FRESH_SEED + i for i in range(self.protocol.seeds)]

    def is_real(self, setting: str) -> bool:
        """Whether nothing is emulated, so that there is no virtual time to tune in."""
        return setting == "real"

    def overrides(self, setting: str, contender: Contender, values: Values, seed: int) -> list[str]:
        """What makes the base configuration that of one run."""
        options = self.protocol.options.get(contender.method, {})
        own: Values = {
            "method.name": contender.method,
            "method.rule": contender.rule,
            "cluster.speeds.profile": setting,
            **{f"method.options.{key}": value for key, value in options.items()},
            **values,
            "seed": seed,
        }
        return [*OFF_THE_CLOCK, *overrides_of(own)]

    def run_config(
        self, setting: str, contender: Contender, values: Values, seed: int, time_s: float | None = None
    ) -> Config:
        """The configuration of one run on real processes, with another budget if one is given."""
        budget = [] if time_s is None else [f"budget.time_s={time_s!r}"]
        return load_config(self.config, [*self.overrides(setting, contender, values, seed), *budget])

    def simulated_overrides(self, setting: str, contender: Contender, values: Values, seed: int) -> list[str]:
        """What makes the base configuration that of one simulation that tunes."""
        every = self.protocol.tuning_every_samples
        coarser = ["evaluation.every_versions=0", "evaluation.every_s=0", f"evaluation.every_samples={every}"]
        return [*self.overrides(setting, contender, values, seed), *(coarser if every else [])]


def preset_file(name: str) -> Path:
    """The file of a preset: configs/benchmark_NAME.toml of the source tree, or below the working directory.

    Errors: ConfigError for another name, or when there is no such file.
    """
    if name not in PRESETS:
        raise ConfigError(f"--preset {name}: allowed: {', '.join(PRESETS)}")
    beside = Path(asgd.__file__).parents[1] / "configs" / f"benchmark_{name}.toml"
    found = next((path for path in (beside, Path("configs", beside.name)) if path.is_file()), None)
    if found is None:
        raise ConfigError(
            f"--preset {name}: its file configs/{beside.name} belongs to the source tree, and is neither at {beside} "
            "nor below the working directory; give its path as CONFIG"
        )
    return found


def load_plan(
    source: Path | str | dict[str, Any],
    overrides: Sequence[str] = (),
    *,
    name: str = "benchmark",
    changed: dict[str, Any] | None = None,
) -> Plan:
    """Return the checked plan of a benchmark.

    Args:
        source: a run's configuration, a file or a dict, with or without a table `[benchmark]`.
        overrides: "key=value" of it, "benchmark.key=value" too.
        name: of the benchmark, for titles; changed: keys of `[benchmark]` that replace those of the file.

    Errors: ConfigError, one sentence, for whatever could not be run or compared.

    Example:
        >>> speeds = {"profile": "half_slower", "seconds": 0.01}
        >>> plan = load_plan({"budget": {"time_s": 5.0}, "evaluation": {"every_samples": 640},
        ...                   "cluster": {"speeds": speeds}, "benchmark": {"methods": ["ringmaster"], "seeds": 2}})
        >>> [contender.key for contender in plan.contenders], plan.settings, plan.fresh_seeds
        (['ringmaster:scale', 'minibatch'], ['half_slower'], [100, 101])
    """
    keys = [override.partition("=")[0].strip() for override in overrides]
    for key in keys:
        if key == "method" or any(key == own or key.startswith(f"{own}.") for own in OWN_KEYS[:-1]):
            raise ConfigError(
                f"--set {key}: each contender has its own, or is tuned for it; allowed are the other keys (contenders: "
                "--methods, their options: benchmark.options.NAME.KEY, the grid: benchmark.lowest, highest, per_octave)"
            )
    config, table, where = load_with_table(source, "benchmark", overrides)
    protocol = _protocol(table | (changed or {}), where)
    if protocol.profiles and "cluster.speeds.profile" in keys:
        raise ConfigError(
            "--set cluster.speeds.profile: the benchmark is done under each of benchmark.profiles; set those, e.g. "
            "--set 'benchmark.profiles=[\"equal\"]'"
        )
    settings = protocol.profiles or [config.cluster.speeds.profile]
    plan = Plan(name, config, protocol, _contenders(protocol, config.method.rule), settings)
    _check(plan)
    return plan


def _protocol(table: dict[str, Any], where: str) -> Protocol:
    unknown = [key for key in table if key not in Protocol.__struct_fields__]
    if unknown:
        allowed = ", ".join(Protocol.__struct_fields__)
        raise ConfigError(
            f"{where}: benchmark.{unknown[0]}: there is no such key; allowed in [benchmark] are {allowed}"
        )
    try:
        return msgspec.convert(table, Protocol)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: [benchmark]: {error}".replace("`$.", "`benchmark.")) from None


def _contenders(protocol: Protocol, usual_rule: str) -> list[Contender]:
    """The contenders in their order; mini-batch SGD always is one."""
    listed = [*protocol.methods, *([] if BASELINE in protocol.methods else [BASELINE])]
    contenders = []
    for text in listed:
        method, colon, rule = text.partition(":")
        if method not in METHODS:
            raise ConfigError(f"benchmark.methods: {text!r}: there is no method {method!r}; allowed: {_names(METHODS)}")
        if colon and rule not in RULES:
            raise ConfigError(f"benchmark.methods: {text!r}: there is no rule {rule!r}; allowed: {_names(RULES)}")
        # Its gradients have no delay, so that all rules are one.
        key, rule = (BASELINE, "constant") if method == BASELINE else (f"{method}:{rule or usual_rule}", rule)
        contenders.append(Contender(key, method, rule or usual_rule))
    if protocol.ddp:
        contenders.append(Contender(DDP, BASELINE, "constant"))
    return list({contender.key: contender for contender in contenders}.values())


def _names(known: dict[str, Any]) -> str:
    return ", ".join(known)


def _check(plan: Plan) -> None:
    """Refuse what could not be run or compared fairly, before anything is run; ConfigError."""
    protocol, config = plan.protocol, plan.config
    protocol.goal.check()
    _check_budget(config)
    least = {"seeds": 1, "tuning_seeds": 1, "widen": 0, "tuning_every_samples": 0}
    for key, allowed in least.items():
        if getattr(protocol, key) < allowed:
            raise ConfigError(
                f"benchmark.{key} = {getattr(protocol, key)}: allowed is a whole number of at least {allowed}"
            )
    if protocol.tuning_seeds > FIRST_FRESH_SEED:
        raise ConfigError(f"benchmark.tuning_seeds = {protocol.tuning_seeds}: allowed are {FIRST_FRESH_SEED}")
    for key, values in protocol.also.items():
        if key in OWN_KEYS or key.startswith(("budget", "cluster", "evaluation", "task")):
            raise ConfigError(
                f"benchmark.also: {key}: allowed are keys of [method], [optimizer] and [schedule] that say how to train"
            )
        if not values or not all(isinstance(value, bool | int | float | str) for value in values):
            raise ConfigError(f"benchmark.also: {key} = {values}: allowed is a list of numbers, texts or booleans")
    unknown = [profile for profile in protocol.profiles if profile not in PROFILES]
    if unknown:
        raise ConfigError(f"benchmark.profiles: {unknown[0]!r}: allowed: {_names(PROFILES)}")
    unused = [name for name in protocol.options if name not in {contender.method for contender in plan.contenders}]
    if unused:
        raise ConfigError(f"benchmark.options.{unused[0]}: this method is no contender (benchmark.methods)")
    also = {key: values[0] for key, values in protocol.also.items()}
    for setting in plan.settings:
        for contender in plan.contenders:
            checked = check_ddp if contender.key == DDP else validate
            others = [{key: value} for key, values in protocol.also.items() for value in values[1:]]
            for other in [{}, *others]:
                point = {**also, **other, STEP_SIZE: protocol.step_sizes[0]}
                checked(plan.run_config(setting, contender, point, config.seed))


def _check_budget(config: Config) -> None:
    budget, evaluation = config.budget, config.evaluation
    others = [key for key in ("versions", "samples", "gradients") if getattr(budget, key)]
    if not budget.time_s:
        raise ConfigError("budget.time_s = 0: all contenders run for the same seconds; allowed is a number above 0")
    if others:
        raise ConfigError(
            f"budget.{others[0]} = {getattr(budget, others[0])}: it would end the faster contenders first; allowed is "
            "budget.time_s alone (they are compared at equal gradients too)"
        )
    if not (evaluation.every_versions or evaluation.every_samples or evaluation.every_s):
        raise ConfigError(
            "evaluation.every_samples = 0: a time to a target is no finer than the evaluations, and the default of 10 "
            "points is too coarse; set it, or every_versions or every_s"
        )
