"""The methods that advice is about: their paces with every option that is looked at, and which is named first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from asgd.sim.pace import Pace, measure_pace
from asgd.sim.rates import first_of_all
from asgd.sim.tuning import overrides_of

# Predictions that differ by less can't be told apart (they are off by 10% and more): then the first of these is named,
# mini-batch, which has no stale gradients, and methods without an option before those that have one to choose.
MARGIN = 1.03
MINIBATCH = "mini-batch"
NAMES = {
    ("minibatch", "scale"): MINIBATCH,
    ("asynchronous", "scale"): "asynchronous",
    ("asynchronous", "constant"): "asynchronous, constant steps",
    ("m_synchronous", "scale"): "m-synchronous",
    ("ringmaster", "scale"): "Ringmaster",
    ("rennala", "scale"): "Rennala",
}
ORDER = list(NAMES.values())
LEAST_DISCARDED = 0.005  # of the gradients, by a threshold R that does something
NOISES = (0.1, 1000.0)  # sigma^2/eps between which is looked for where the advice changes
_PER_DECADE = 100


class Regime(msgspec.Struct, frozen=True, kw_only=True):
    """The method that is named first for sigma^2/eps from `low` to `high` (None: as far as was looked)."""

    name: str
    low: float | None
    high: float | None


class Option(NamedTuple):
    """A method with a value of its option, if it has one, and its pace."""

    method: str
    rule: str
    options: dict[str, Any]
    pace: Pace

    @property
    def name(self) -> str:
        """That of the method (with its rule) in words."""
        return NAMES[self.method, self.rule]

    @property
    def label(self) -> str:
        """The name with the value of the option.

        Example:
            >>> Option("ringmaster", "scale", {"R": 8}, Pace(1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0)).label
            'Ringmaster, R = 8'
        """
        shown = [f"{'S' if key == 'batch' else key} = {value}" for key, value in self.options.items()]
        return ", ".join([self.name, *shown])

    @property
    def overrides(self) -> list[str]:
        """What a configuration needs for it."""
        options = {f"method.options.{key}": value for key, value in self.options.items()}
        return overrides_of({"method.name": self.method, "method.rule": self.rule} | options)


def predicted(times_N: Sequence[Sequence[float]]) -> list[Option]:
    """Every method with every option that is looked at, and its pace.

    Example:
        >>> sorted({option.name for option in predicted([[1.0], [2.0]])})
        ['Rennala', 'Ringmaster', 'asynchronous', 'asynchronous, constant steps', 'm-synchronous', 'mini-batch']
    """
    n = len(times_N)
    *first_m, slowest = (_synchronous(seconds, m) for m, seconds in enumerate(first_of_all(times_N), start=1))
    found = [Option("m_synchronous", "scale", {"m": m}, pace) for m, pace in enumerate(first_m, start=1)]
    found.append(Option("minibatch", "scale", {}, slowest))
    for rule in ("scale", "constant"):
        found += _measured(times_N, "asynchronous", rule, {})
    for threshold in _grid(4 * n):
        option = _measured(times_N, "ringmaster", "scale", {"R": threshold})
        found += option
        if option and option[0].pace.discarded_share < LEAST_DISCARDED:
            break  # larger ones do nothing either: that is asynchronous SGD with constant steps
    for batch in _grid(max(4 * n, 128)):
        found += _measured(times_N, "rennala", "scale", {"batch": batch})
    return found


def _measured(times_N: Sequence[Sequence[float]], method: str, rule: str, options: dict[str, Any]) -> list[Option]:
    pace = measure_pace(times_N, method, rule, options)
    return [] if pace is None else [Option(method, rule, options, pace)]


def _synchronous(seconds: float, m: int) -> Pace:
    return Pace(seconds, float(m), 1.0, 1.0, m / seconds, 0.0, 0.0)


def _grid(highest: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... to `highest`."""
    values = {2**k for k in range(highest.bit_length())} | {3 * 2**k for k in range(highest.bit_length())}
    return sorted(value for value in values if value <= highest)


def best_options(found: Sequence[Option], noise: float) -> list[Option]:
    """Each method once, with the option that is fastest at this noise; the fastest method first."""
    best: dict[str, Option] = {}
    for option in found:
        if option.name not in best or option.pace.time(noise) < best[option.name].pace.time(noise):
            best[option.name] = option
    return sorted(best.values(), key=lambda option: option.pace.time(noise))


def named_first(options: Sequence[Option], noise: float) -> Option:
    """The one to use: the fastest, or a simpler one that can't be told from it (see MARGIN)."""
    fastest = min(option.pace.time(noise) for option in options)
    near = [option for option in options if option.pace.time(noise) <= MARGIN * fastest]
    return min(near, key=lambda option: (ORDER.index(option.name), option.pace.time(noise)))


def regimes_of(found: Sequence[Option]) -> list[Regime]:
    """Which method is named first for which sigma^2/eps, from 0.1 to 1000.

    Example:
        >>> [(regime.name, regime.low, regime.high) for regime in regimes_of(predicted([[1.0]]))]
        [('mini-batch', None, None)]
    """
    low, high = (math.log10(noise) for noise in NOISES)
    steps = round((high - low) * _PER_DECADE)
    regimes: list[Regime] = []
    for step in range(steps + 1):
        noise = 10.0 ** (low + step / _PER_DECADE)
        name = named_first(best_options(found, noise), noise).name
        if not regimes or regimes[-1].name != name:
            if regimes:
                regimes[-1] = msgspec.structs.replace(regimes[-1], high=noise)
            regimes.append(Regime(name=name, low=noise if regimes else None, high=None))
    return regimes
