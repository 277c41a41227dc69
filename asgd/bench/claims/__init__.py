"""The claims of arXiv:2206.08307, checked: what is predicted, what the core does in virtual time or on processes.

To add a claim: a module here with a function `check(effort) -> Outcome`, and a line in CLAIMS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from asgd.bench.claims import conservation, delay_claims, heterogeneous, queueing, race, speedup, stability
from asgd.bench.claims.effort import Effort
from asgd.bench.claims.outcome import Outcome
from asgd.errors import ConfigError

__all__ = ["CLAIMS", "Claim", "Effort", "Outcome", "chosen"]


class Claim(NamedTuple):
    """Arguments: title: the claim in a few words; where: in the paper; check: does the work."""

    title: str
    where: str
    check: Callable[[Effort], Outcome]


CLAIMS: dict[int, Claim] = {
    1: Claim("delays add up; their average is the concurrency - 1", "Definition 4", conservation.check),
    2: Claim("constant step: the cost of a growing largest delay", "Theorem 6", delay_claims.check_constant),
    3: Claim("delay-adaptive step: no cost of a growing largest delay", "Theorem 8", delay_claims.check_adaptive),
    4: Claim("delay-adaptive: sooner at eps than mini-batch", "Theorem 8, Example 2", speedup.check),
    5: Claim(
        "different data: average delays count, delay-adaptive steps are biased", "Theorem 10", heterogeneous.check
    ),
    6: Claim("fewer seconds per gradient than mini-batch", "Lemma 11", queueing.check),
    7: Claim("stability limit for equal speeds", "classical; constant delay n - 1", stability.check),
    8: Claim("who wins where", "methods since 2016; optimal time of arXiv:2305.12387", race.check),
}


def chosen(only: str | None) -> list[int]:
    """The numbers in a list such as "1,4"; all when None. Errors: ConfigError for what is none.

    Example:
        >>> chosen("7,2")
        [2, 7]
    """
    if only is None:
        return list(CLAIMS)
    parts = [part.strip() for part in only.split(",")]
    wrong = [part for part in parts if not part.isdigit() or int(part) not in CLAIMS]
    if wrong:
        raise ConfigError(f"--only {only!r}: {wrong[0]!r} is no claim; allowed: {', '.join(map(str, CLAIMS))}")
    return sorted({int(part) for part in parts})
