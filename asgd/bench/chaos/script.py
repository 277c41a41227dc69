"""What is done to a run, and when: a list of faults, made from a seed and nothing else.

A fault strikes when the run has reached its version and what the fault before it did is over. The first ones hit the
server before its first checkpoint, some hit it while it recovers, the last ones while the run ends.
"""

from __future__ import annotations

import random
from typing import Literal, NamedTuple

Kind = Literal["kill", "stop", "delay", "cut", "half_open"]
Role = Literal["server", "worker", "evaluator"]
When = Literal["version", "spawned", "opened", "ending", "evaluating"]

UNTIL_LOST = -1  # until the server takes the worker for dead
UNTIL_NEXT = -2  # until the next fault has struck

SERVER_SHARE = 5  # one kill in so many is of the server
EVALUATOR_SHARE = 20
_RECOVERY_SHARE = 5  # one kill of the server in so many hits one that is coming up
_BEFORE_END = 5  # versions
# One fault of these for so many kills.
_OTHERS: tuple[tuple[int, Kind, Role, bool], ...] = (
    (10, "stop", "worker", False),
    (20, "stop", "worker", True),
    (20, "stop", "server", False),
    (10, "delay", "worker", False),
    (10, "cut", "worker", False),
    (20, "half_open", "worker", True),
)


class Fault(NamedTuple):
    """One thing that is done to a run.

    version: strikes once the run has reached it. kind: SIGKILL; SIGSTOP and, `length` later, SIGCONT; all that passes
    between a worker and the server is late; their connection is cut off; it swallows what is sent. worker: its number,
    -1 for other roles. length: in versions, UNTIL_LOST or UNTIL_NEXT; of a stopped server, which makes no versions, in
    messages that its workers have sent it meanwhile. when: at the version; as soon as a new server process is there;
    as soon as it has taken up the run; when the training has ended; while the last versions are evaluated.
    """

    version: int
    kind: Kind
    role: Role
    worker: int = -1
    length: int = 0
    when: When = "version"

    @property
    def name(self) -> str:
        """What kind of fault it is, for a table.

        Example:
            >>> Fault(5, "kill", "server", when="spawned").name
            'server killed while coming up'
        """
        if self.kind == "kill":
            moment = {
                "version": "",
                "spawned": " while coming up",
                "opened": " while coming up",
                "ending": " while the run ends",
                "evaluating": " while the run ends",
            }[self.when]
            return f"{self.role} killed{moment}"
        if self.kind == "stop":
            return f"{self.role} stopped" + (" until taken for dead" if self.length == UNTIL_LOST else "")
        return {"delay": "connection slow", "cut": "connection cut off", "half_open": "connection half open"}[self.kind]


def make_script(seed: int, kills: int, num_workers: int, versions: int, *, evaluator: bool = True) -> list[Fault]:
    """The faults of a run, in their order.

    Args: seed: of the script; kills: SIGKILLs, >= 0, a fifth of them of the server; num_workers: >= 1; versions: the
    run's budget, at least `versions_for(kills, 1)`; evaluator: whether the run has one.

    Example:
        >>> [fault.name for fault in make_script(0, 2, 4, 100)][:2]
        ['server stopped', 'worker killed']
    """
    chance = random.Random(seed)
    before, middle, after = _parts(kills, evaluator)
    chance.shuffle(middle)
    every = versions // (len(middle) + 1)
    script = list(before)
    for slot, group in enumerate(middle):
        version = every * (slot + 1) - chance.randrange(max(1, every // 2))
        for fault in group:
            worker = chance.randrange(num_workers) if fault.role == "worker" else -1
            length = fault.length
            if length == 0 and fault.kind in ("stop", "delay"):
                length = chance.randint(
                    *((num_workers, 20 * num_workers) if fault.role == "server" else (5, every + 5))
                )
            script.append(fault._replace(version=version, worker=worker, length=length))
    return script + [fault._replace(version=max(1, versions + fault.version)) for fault in after]


def versions_for(kills: int, every: int, *, evaluator: bool = True) -> int:
    """Updates that a run needs so that a script of so many kills has one fault in `every` of them.

    Example:
        >>> versions_for(200, 60)
        16740
    """
    return every * (len(_parts(kills, evaluator)[1]) + 1)


def _parts(kills: int, evaluator: bool) -> tuple[list[Fault], list[list[Fault]], list[Fault]]:
    """The faults of the start, of the middle (in groups that belong together, not yet in order) and of the end."""
    servers, evaluators = kills // SERVER_SHARE, kills // EVALUATOR_SHARE if evaluator else 0
    workers = kills - servers - evaluators
    before, after = [], []
    if servers >= 5:  # so few that they don't use up those of the middle
        before = [Fault(0, "kill", "server", when=when) for when in ("spawned", "opened")]
        after = [Fault(0, "kill", "server", when="ending")]
        if evaluators >= 1:  # stopped, it keeps the last evaluations open
            stopped = Fault(-_BEFORE_END, "stop", "evaluator", length=UNTIL_NEXT)
            after = [stopped, Fault(0, "kill", "server", when="evaluating"), *after]
            after.append(Fault(0, "kill", "evaluator", when="ending"))
            evaluators -= 1
        servers -= sum(fault.role == "server" for fault in before + after)
    again = servers // _RECOVERY_SHARE
    middle = [[Fault(0, "kill", "server")] for _ in range(servers - again)]
    for number in range(again):
        middle[number].append(Fault(0, "kill", "server", when="spawned" if number % 2 else "opened"))
    middle += [[Fault(0, "kill", "evaluator")] for _ in range(evaluators)]
    middle += [[Fault(0, "kill", "worker")] for _ in range(workers)]
    for share, kind, role, until_lost in _OTHERS:
        fault = Fault(0, kind, role, length=UNTIL_LOST if until_lost else 0)
        middle += [[fault] for _ in range(max(1, kills // share))]
    return before, middle, after
