"""Many simulations in parallel: imports torch and loads the data once, then forks a process for each simulation.

Started by `parallel.py` as `python -m asgd.sim.forks`: a `Work` on the first line of standard input, a `Done` or a
`Failed` on each line of standard output. Each simulation has a process of its own: what one leaves behind can't change
another, and what they give doesn't depend on how many go on at a time.

Nothing outlives it: when its input ends (whoever waits is gone or has heard enough) it kills its children, each by its
own id, and when it is killed itself the kernel kills them. It has one thread and touches no device, so that forking is
safe; each simulation has one thread, too.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import sys
import tomllib
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import torch

from asgd.config import Config, load_config
from asgd.errors import AsgdError, RunError
from asgd.learn.task import Task, depends_on_seed, load_task
from asgd.run.processes import die_with, ending, take_output, take_work, tell
from asgd.sim.measure import check_metric, measure
from asgd.sim.parallel import Done, Failed, Work


@dataclass
class _Child:
    """A simulation that goes on: which one, its process, and what it has written so far."""

    index: int
    pid: int
    written: bytes = b""


@dataclass
class Forks:
    """The simulations of one `Work`; `out` is the descriptor that events are written to."""

    work: Work
    out: int
    children: dict[int, _Child] = field(default_factory=dict)  # by the reading end of each one's pipe
    _tasks: dict[bytes, Task] = field(default_factory=dict)

    def run(self) -> None:
        """Run them all in their order, `work.jobs` at a time; returns early when standard input has ended."""
        base = tomllib.loads(self.work.config)
        waiting = list(enumerate(self.work.overrides))[::-1]
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            while waiting or self.children:
                while waiting and len(self.children) < self.work.jobs:
                    index, overrides = waiting.pop()
                    config = load_config(base, overrides)
                    selector.register(self._start(index, config, self._task(config)), selectors.EVENT_READ)
                for key, _ in selector.select():
                    if key.fd == 0:
                        return  # nothing comes after the first line but the end
                    if not self._hear(key.fd):
                        selector.unregister(key.fd)
                        self._ended(key.fd)

    def _task(self, config: Config) -> Task:
        """The configured task, loaded once for all simulations that share it."""
        chosen = config.task
        seed = config.seed if depends_on_seed(chosen.function) else None
        key = msgspec.json.encode([chosen.function, chosen.options, seed], order="sorted")
        if key not in self._tasks:
            root = Path(self.work.data_root)
            task = load_task(chosen.function, chosen.options, root, config.seed, chosen.download)
            check_metric(self.work.goal.metric, task)
            self._tasks[key] = task
            gc.freeze()  # what is there already stays on pages that the children share
        return self._tasks[key]

    def _start(self, index: int, config: Config, task: Task) -> int:
        """Fork a simulation; returns the reading end of its pipe."""
        reading, writing = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                die_with(parent, signal.SIGKILL)
                for descriptor in (reading, self.out, *self.children):
                    os.close(descriptor)  # or nobody would notice the parent's end while a child lives
                tell(writing, self._simulate(index, config, task))
            finally:
                os._exit(0)  # never back into the parent's code, and no clean-up of what is the parent's
        os.close(writing)
        self.children[reading] = _Child(index, pid)
        return reading

    def _simulate(self, index: int, config: Config, task: Task) -> Done | Failed:
        what = ", ".join(self.work.overrides[index])
        try:
            return Done(index, measure(config, task, self.work.goal))
        except AsgdError as error:
            return Failed.by(error, what)
        except BaseException as error:
            traceback.print_exc()
            return Failed.by(RunError(f"{type(error).__name__}: {error}"), what)

    def _hear(self, reading: int) -> bool:
        """Take what a child has written; False when that was all."""
        got = os.read(reading, 65536)
        self.children[reading].written += got
        return bool(got)

    def _ended(self, reading: int) -> None:
        """Tell a child's result; RunError when it died without one."""
        child = self.children.pop(reading)
        os.close(reading)
        _, status = os.waitpid(child.pid, 0)
        if not child.written:
            what = ", ".join(self.work.overrides[child.index])
            raise RunError(f"the simulation of {what} died: {ending(os.waitstatus_to_exitcode(status))}")
        os.write(self.out, child.written)

    def stop_all(self) -> None:
        """Kill the simulations that go on: there is nothing of theirs to be saved."""
        for child in self.children.values():
            os.kill(child.pid, signal.SIGKILL)
        for child in self.children.values():
            os.waitpid(child.pid, 0)


def main() -> int:
    out = take_output()
    work = take_work(Work)
    if work is None:
        return 0
    torch.set_num_threads(1)
    forks = Forks(work, out)
    try:
        forks.run()
    except AsgdError as error:
        tell(out, Failed.by(error))
    finally:
        forks.stop_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
