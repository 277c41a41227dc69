"""Step-size rules: how long a step a gradient of a given delay is worth.

Each rule is a pure function `rule(step_size, delay, concurrency, **options) -> float`:

    step_size    eta > 0, the scheduled step size at this version
    delay        tau >= 0, updates between the version that the gradient was computed at and the version that it meets
    concurrency  tau_C >= 1, the largest number of jobs outstanding at once so far in the run

It returns eta_t; 0 means that the gradient is to be dropped. Two keywords are no options but given with each call to
the rules that have them: `version` is t, the updates so far; `steps_since_read` is the sum of the step sizes of the
updates since the version that the gradient was computed at (a rule has one of them at most). References: "Koloskova
2022" is Koloskova, Stich, Jaggi, arXiv:2206.08307. To add a rule: write the function here, add it to RULES, and one row
to the table in tests/core/test_step_rules.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from math import sqrt

from asgd.errors import ConfigError

Rule = Callable[..., float]  # (step_size, delay, concurrency), and the keyword of GIVEN that `takes` says


def constant(step_size: float, delay: int, concurrency: int) -> float:
    """Constant step size, whatever the delay.

    Formula: eta_t = eta. Converges for eta <= 1/(2 sqrt(2) L sqrt(tau_C tau_max)): the largest delay has to be known.

    Example:
        >>> constant(0.1, delay=50, concurrency=4)
        0.1

    Reference: Koloskova 2022, Theorem 6.
    """
    return step_size


def scale(step_size: float, delay: int, concurrency: int) -> float:
    """Delay-adaptive step size, free of L; the default.

    Formula: eta_t = eta min(1, tau_C / tau). With eta <= 1/(4 L tau_C) it never exceeds the bound 1/(4 L tau) of the
    theorem, so one step size is tuned and no delay has to be known.

    Example:
        >>> scale(0.1, delay=8, concurrency=4)
        0.05

    Reference: Koloskova 2022, Theorem 8, with the admissible choice above tau_C written as a factor.
    """
    return step_size if delay <= concurrency else step_size * (concurrency / delay)


def theory(step_size: float, delay: int, concurrency: int, *, smoothness: float) -> float:
    """Delay-adaptive step size exactly as the theorem states it.

    Formula: eta_t = eta while tau <= tau_C, otherwise min(eta, 1/(4 L tau)).

    Args:
        smoothness: L > 0, the Lipschitz constant of the gradient.

    Example:
        >>> theory(0.1, delay=10, concurrency=4, smoothness=1.0)
        0.025

    Reference: Koloskova 2022, Theorem 8.
    """
    return step_size if delay <= concurrency else min(step_size, 1.0 / (4.0 * smoothness * delay))


def drop(step_size: float, delay: int, concurrency: int, *, k: float = 2.0) -> float:
    """Constant step size for gradients that are fresh enough; the others are dropped.

    Formula: eta_t = eta while tau <= k tau_C, otherwise 0.

    Args:
        k: threshold in units of the concurrency, >= 1. The theorem allows k = 1, but there a few fast workers get
            most of the others' gradients thrown away, hence 2.

    Example:
        >>> drop(0.1, delay=9, concurrency=4)
        0.0

    Reference: Koloskova 2022, Theorem 8 with step 0 above the threshold; the theorem has k = 1.
    """
    return step_size if delay <= k * concurrency else 0.0


def staleness_aware(step_size: float, delay: int, concurrency: int) -> float:
    """Step size divided by the delay.

    Formula: eta_t = eta / max(1, tau).

    Example:
        >>> staleness_aware(0.1, delay=4, concurrency=4)
        0.025

    Reference: Zhang, Gupta, Lian, Liu, "Staleness-aware Async-SGD for distributed deep learning", arXiv:1511.05950.
    """
    return step_size / max(1, delay)


def mishchenko(step_size: float, delay: int, concurrency: int, *, num_workers: float) -> float:
    """Delay-adaptive step size that counts in workers: `scale` with n in place of tau_C.

    Formula: eta_t = eta n / max(n, tau). With n = tau_C (every worker has one job from the start on) it coincides with
    `scale`; it differs while fewer jobs are out than n, and with several jobs per worker.

    Args:
        num_workers: n >= 1.

    Example:
        >>> mishchenko(0.1, delay=8, concurrency=4, num_workers=2)
        0.025

    Reference: Mishchenko, Bach, Even, Woodworth, "Asynchronous SGD Beats Minibatch SGD Under Arbitrary Delays",
    arXiv:2206.07638, in the form of the authors' published code.
    """
    return step_size * (num_workers / max(num_workers, delay))


def adadelay(step_size: float, delay: int, concurrency: int, *, c: float = 0.1, version: int = 0) -> float:
    """Step size that falls with the root of time plus delay; it brings its own schedule along.

    Formula: eta_t = eta / (1 + c sqrt(t + tau)), that is 1 / (L' + c' sqrt(t + tau)) with L' = 1/eta and c' = c/eta. A
    delay counts as so many updates more: it matters at the start and hardly later. The steps fall without any delay
    too, so it belongs with a constant schedule, and a single worker's run is SGD with falling steps.

    Args:
        c: how fast the steps fall, > 0, to be tuned with eta; the default is ours.

    Example:
        >>> adadelay(0.1, delay=4, concurrency=4, c=0.5, version=12)
        0.03333333333333333

    Reference: Sra, Yu, Li, Smola, "AdaDelay: Delay Adaptive Distributed Stochastic Convex Optimization",
    arXiv:1508.05003, in the form alpha / (beta + sqrt(t + tau)) of the delay-tolerant SGD in the repository
    dmlc/wormhole (eta = alpha/beta, c = 1/beta). We leave out the projection onto a compact set.
    """
    return step_size / (1.0 + c * sqrt(version + delay))


# Equal delays end on equality of both sides, in exact arithmetic: the rounding of a division mustn't drop them all.
_ROUNDING = 1e-9


def wu_adaptive_1(
    step_size: float, delay: int, concurrency: int, *, alpha: float = 0.9, steps_since_read: float = 0.0
) -> float:
    """A fixed share of what is left of the step size after the steps taken since the gradient's version.

    Formula: gamma_k = alpha max(gamma' - sum_{t = k - tau_k}^{k - 1} gamma_t, 0), gamma' = `step_size`. The steps from
    a gradient's version to its own add up to gamma' at most, however long the delays: no bound on them is needed. The
    theory's gamma' is h/L with 0 < h < 1. With constant delay tau the steps settle at gamma' alpha / (1 + alpha tau),
    so choose `step_size` about tau + 1 times as large as for the other rules. A gradient that finds nothing left is
    dropped.

    Args:
        alpha: in (0, 1]; the paper has alpha < 1.

    Example:
        >>> wu_adaptive_1(0.5, delay=3, concurrency=4, steps_since_read=0.25)
        0.225

    Reference: Wu, Magnusson, Feyzmahdavian, Johansson, "Delay-adaptive step-sizes for asynchronous learning",
    arXiv:2202.08550, Adaptive 1. Read: abstract and a summary; the formula is not checked against the paper itself.
    Theirs are step sizes of aggregated-gradient (PIAG) and block-coordinate methods; here they weigh single gradients.
    """
    return alpha * max(step_size - steps_since_read, 0.0)


def wu_adaptive_2(step_size: float, delay: int, concurrency: int, *, steps_since_read: float = 0.0) -> float:
    """The step size divided by the delay plus one, where that much is left; otherwise the gradient is dropped.

    Formula: gamma_k = gamma' / (tau_k + 1) if that is at most gamma' - sum_{t = k - tau_k}^{k - 1} gamma_t, else 0;
    gamma' = `step_size`. Bounds and choice of gamma' are those of `wu_adaptive_1`.

    Example:
        >>> wu_adaptive_2(0.5, delay=3, concurrency=4, steps_since_read=0.25)
        0.125
        >>> wu_adaptive_2(0.5, delay=3, concurrency=4, steps_since_read=0.4)
        0.0

    Reference: Wu, Magnusson, Feyzmahdavian, Johansson, arXiv:2202.08550, Adaptive 2; what was read of it is said in
    `wu_adaptive_1`. Equality is taken with a relative
    tolerance of 1e-9: it is where constant delays lead, and rounding would decide.
    """
    share = step_size / (delay + 1)
    return share if share <= (step_size - steps_since_read) * (1.0 + _ROUNDING) else 0.0


RULES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "scale": scale,
    "theory": theory,
    "drop": drop,
    "staleness_aware": staleness_aware,
    "mishchenko": mishchenko,
    "adadelay": adadelay,
    "wu_adaptive_1": wu_adaptive_1,
    "wu_adaptive_2": wu_adaptive_2,
}
# What an option may be: the smallest allowed value, and whether that value itself is allowed.
_LOWEST: dict[str, tuple[float, bool]] = {
    "smoothness": (0.0, False),
    "k": (1.0, True),
    "num_workers": (1.0, True),
    "c": (0.0, False),
    "alpha": (0.0, False),
}
_HIGHEST = {"alpha": 1.0}
GIVEN = ("version", "steps_since_read")  # the keywords that are no options: whoever calls the rule gives them


def make_rule(name: str, options: Mapping[str, object] | None = None) -> Rule:
    """Return the rule `name` with its options bound.

    Args:
        name: a key of RULES.
        options: the rule's keyword arguments, finite numbers.

    Errors: ConfigError for an unknown rule, an unknown or missing option, or one out of range.

    Example:
        >>> make_rule("drop", {"k": 3})(0.1, 13, 4)
        0.0
    """
    options = dict(options or {})
    if name not in RULES:
        raise ConfigError(f"method.rule = {name!r}: there is no such step-size rule; allowed: {', '.join(RULES)}")
    rule = RULES[name]
    keywords = [p for p in inspect.signature(rule).parameters.values() if p.kind is p.KEYWORD_ONLY]
    parameters = {p.name: p for p in keywords if p.name not in GIVEN}
    for key, value in options.items():
        if key not in parameters:
            allowed = ", ".join(parameters) or "none"
            raise ConfigError(f"method.rule_options.{key}: rule {name!r} has no such option; allowed: {allowed}")
        lowest, inclusive = _LOWEST[key]
        number = isinstance(value, int | float) and not isinstance(value, bool) and value < float("inf")
        highest = _HIGHEST.get(key, float("inf"))
        low_enough = number and value <= highest  # type: ignore[operator]
        if not low_enough or not (value > lowest or (inclusive and value == lowest)):  # type: ignore[operator]
            bound = f"{'at least' if inclusive else 'above'} {lowest:g}"
            bound += f" and at most {highest:g}" if key in _HIGHEST else ""
            raise ConfigError(f"method.rule_options.{key} = {value!r}: allowed is a finite number {bound}")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in options:
            raise ConfigError(f"method.rule_options.{key} is missing: rule {name!r} needs it")
    return partial(rule, **options) if options else rule


def takes(rule: Rule, keyword: str) -> bool:
    """Whether the rule is to be called with this keyword of GIVEN.

    Example:
        >>> takes(make_rule("adadelay", {"c": 1}), "version"), takes(constant, "version")
        (True, False)
    """
    return keyword in inspect.signature(rule).parameters
