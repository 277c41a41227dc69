"""A worker: one job after the other, at the version that came with it, until the server says stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from torch import Tensor

from asgd.config import Config
from asgd.errors import RunError
from asgd.learn.flat import FlatModel
from asgd.learn.task import Task
from asgd.net.messages import Cancel, Gradient, Job, Refused, Stop, Welcome
from asgd.net.zeromq import ZmqClient
from asgd.run.client import Connection, Got
from asgd.run.jobs import compute_job
from asgd.run.security import client_keys
from asgd.run.signals import StopRequests
from asgd.run.speeds import job_seconds


class _Cancelled(Exception):
    """The server doesn't want the job that is being computed any more."""


class _Stopped(Exception):
    """The server ends the run."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Worker:
    """Computes the jobs of one connection.

    The samples and augmentations of a job depend only on (seed, worker, job). With emulated speeds the real gradient
    is computed first, then the rest of the job's time is waited out, still listening to the server.

    Arguments: config, task: the run's; flat: this worker's model; connection: after the handshake; welcome: what
    the server said then.
    """

    def __init__(
        self,
        config: Config,
        task: Task,
        flat: FlatModel,
        connection: Connection,
        welcome: Welcome,
        shards: Sequence[Tensor] | None = None,
    ) -> None:
        self._config, self._task, self._flat, self._shards = config, task, flat, shards
        self._connection = connection
        self._welcomed(welcome)
        connection.on_return = self._welcomed

    def _welcomed(self, welcome: Welcome) -> None:
        self._worker = welcome.worker
        self._began_s = time.monotonic() - welcome.time_s  # of the run, not of this process

    def run(self) -> str:
        """Work until the server ends it; returns the server's reason."""
        while True:
            got = self._connection.wait()
            assert got is not None
            reply = got.reply
            try:
                if isinstance(reply, Job):
                    self._work(reply, got)
                elif isinstance(reply, Stop):
                    return reply.reason
                elif isinstance(reply, Refused):
                    raise RunError(f"the server refused worker {self._worker}: {reply.reason}")
            except _Stopped as stopped:
                return stopped.reason
            except _Cancelled:
                continue
            finally:
                self._connection.at_work = None

    def _work(self, job: Job, got: Got) -> None:
        """One job; `_Stopped` or `_Cancelled` when the server says so meanwhile."""
        started_s = time.monotonic()
        self._connection.before_work(job.job)
        got.received.copy_payload_into(self._flat.state_view())
        result = compute_job(
            self._config,
            self._task,
            self._flat,
            self._worker,
            job.job,
            self._shards,
            between=lambda: self._listen(job.job, time.monotonic()),
        )
        computed_s = time.monotonic()
        end_s = self._end_of_job(job.job, started_s, computed_s)
        if end_s > computed_s:
            self._listen(job.job, end_s)
        gradient = Gradient(
            job=job.job,
            version=job.version,
            loss=result.loss,
            samples=result.samples,
            compute_s=computed_s - started_s,
            wait_s=max(0.0, time.monotonic() - computed_s) if end_s > computed_s else 0.0,
            queue_s=max(0.0, started_s - got.came_s),
            started_s=max(0.0, self._connection.server_s(started_s)),
        )
        self._connection.answer(gradient, self._flat.answer_view())

    def _end_of_job(self, job: int, started_s: float, computed_s: float) -> float:
        """When the answer may be sent: at once, or when a machine of the emulated speed would be done and have sent
        it.
        """
        speeds = self._config.cluster.speeds
        seconds = job_seconds(
            speeds,
            worker=self._worker,
            num_workers=max(self._config.cluster.num_workers, self._worker + 1),  # others may join
            job=job,
            seed=self._config.seed,
            now_s=started_s - self._began_s,
        )
        done_s = computed_s if seconds is None else max(computed_s, started_s + seconds)
        return done_s + speeds.communication_s

    def _listen(self, job: int, end_s: float) -> None:
        """Listen to the server until `end_s` (at least to what is there); jobs that come meanwhile are kept."""
        while (got := self._connection.wait(until_s=end_s)) is not None:
            if isinstance(got.reply, Stop):
                raise _Stopped(got.reply.reason)
            if not isinstance(got.reply, Cancel):
                self._connection.hold(got)
            elif got.reply.job == job:
                raise _Cancelled
            else:
                self._connection.forget(got.reply.job)


def run_worker(
    config: Config,
    task: Task,
    flat: FlatModel,
    address: str,
    worker: int,
    stops: StopRequests,
    note: Callable[[str], None] = lambda line: None,
    shards: Sequence[Tensor] | None = None,
) -> None:
    """Connect to the server at `address`, work until it says stop, and leave.

    Arguments: worker: the number to ask for, -1 for any; stops: ends the work; note: takes one line about each thing
    worth telling; shards: the samples of each worker, None if all have the same.
    Errors: RunError when the server can't be reached, refuses us or falls silent.
    """
    payload_bytes = flat.state_view().nbytes
    with ZmqClient(address, max_payload_bytes=payload_bytes, keys=client_keys(config)) as transport:
        layout = flat.layout.digest
        connection = Connection(transport, address, config, "worker", worker, layout, payload_bytes, stops, note)
        welcome = connection.hello()
        note(f"worker {welcome.worker} of run {welcome.run} at {address}")
        try:
            reason = Worker(config, task, flat, connection, welcome, shards).run()
        except BaseException as error:
            connection.goodbye(f"{type(error).__name__}: {error}")
            raise
        connection.goodbye(reason)
        note(f"worker {welcome.worker} stopped: {reason}")
