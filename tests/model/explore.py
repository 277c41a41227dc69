"""Every world that can be reached, breadth first, and what must hold in each.

Two worlds are the same if their futures are: versions are folded to ages, jobs to their rank among the outstanding ones
(all that have ended are alike), and the books that nothing is decided by are left out. So what is counted are classes
of states; each is visited once, by a shortest way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from model.fairness import Fairness
from model.history import Violation, require
from model.network import Protocol, Step
from model.worlds import Faults, World, arrival, key


class Explored(NamedTuple):
    states: int
    steps: int  # taken, from all states together
    depth: int  # of the state that is farthest from the start
    cores: int  # states of the core, with all of its books
    waits: int  # states from which a fair continuation was followed


def explore(protocol: Protocol, workers: int, faults: Faults, fairness: Fairness) -> Explored:
    """Visit every state once; Violation, with the steps that lead there, in the first one where a property fails."""
    cores = protocol.cores
    start = protocol.start(workers, faults)
    queue = deque([(start, 0, 0)])
    seen = {key(start, cores)}
    ways: list[tuple[int, Step]] = [(0, ())]
    tried: set[int] = set()  # states of the core in which false answers were tried
    steps = depth = 0
    step: Step = ()
    number = 0
    try:
        while queue:
            world, number, depth = queue.popleft()
            step = ()
            _state_holds(protocol, world, tried)
            fairness.check(world, cores[world.core].plain)
            if cores[world.core].finished:
                continue  # nothing happens any more, which was just tried
            for step, happens in protocol.steps(world):
                steps += 1
                successor = happens()
                label = key(successor, cores)
                if label not in seen:
                    seen.add(label)
                    queue.append((successor, len(ways), depth + 1))
                    ways.append((number, step))
    except Exception as error:  # also what the core raises: there is no state in which it may
        raise Violation(f"{error}; after {_way(ways, number) + [step] * bool(step)}") from error
    return Explored(len(seen), steps, depth, len(cores.seen), fairness.followed)


def _way(ways: list[tuple[int, Step]], number: int) -> list[Step]:
    """The steps that lead to a state."""
    steps = []
    while number:
        number, step = ways[number]
        steps.append(step)
    return steps[::-1]


def _state_holds(protocol: Protocol, world: World, tried: set[int]) -> None:
    """What must hold in a state by itself; what holds of the step to it was checked when it was made."""
    if world.core in tried:
        return
    tried.add(world.core)
    core = protocol.cores[world.core]
    require(protocol.cores.refuses(world.core, *false_answers(world, core.rank)), "a false answer has an effect")


def false_answers(world: World, outstanding: Iterable[int]) -> list:
    """Answers that must not count: to jobs that have ended or were undone, of others than have them, computed at
    another version, to jobs that were never given.
    """
    history, workers = world.history, range(len(world.processes))
    answers = []
    for job, given in (history.jobs | history.undone).items():
        true = arrival(history, given.worker, job)
        if job not in outstanding:
            answers.append(true)
        else:
            answers.append(true._replace(version=given.version + 1))
        answers += [true._replace(worker=worker) for worker in workers if worker != given.worker]
    if history.jobs:
        answers.append(true._replace(job=max(history.jobs | history.undone) + 1))
    return answers
