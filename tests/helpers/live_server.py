"""The real server on a transport in memory, with workers that compute real jobs in a random order, and crashes."""

from __future__ import annotations

import random
import time
from collections import deque

import torch

from asgd.config import load_config, task_digest, to_toml
from asgd.learn.gradient import build_model
from asgd.learn.task import load_task
from asgd.net import messages as wire
from asgd.net.messages import PROTOCOL_VERSION, Gradient, Hello, decode_reply, encode
from asgd.net.transport import Received
from asgd.run.build import make_state
from asgd.run.clock import Clock
from asgd.run.evaluations import Evaluations
from asgd.run.jobs import compute_job
from asgd.run.records import RunDirectory
from asgd.run.recovery import begin_journal, recover
from asgd.run.saving import Saver
from asgd.run.server import Server
from asgd.run.shards import make_shards
from asgd.run.stopwatch import Stopwatch
from asgd.run.summary import summarise
from asgd.run.vectors import Vectors, kept_of_jobs, make_update


class Crash(Exception):
    """The server's process is gone."""


class Wire:
    """A transport in memory; what goes out is copied at once, as the real one does."""

    address, bytes_in, bytes_out = "test", 0, 0

    def __init__(self):
        self.incoming, self.sent = deque(), deque()

    def recv(self, timeout_s, wake=()):
        return self.incoming.popleft() if self.incoming else None

    def admit(self, peer):
        pass  # nobody is a stranger here

    def cut_off(self, peer):
        pass  # nor has a connection

    def send(self, peer, header, payload=None):
        self.sent.append((peer, decode_reply(header), None if payload is None else bytes(payload)))


class LiveServer:
    """One run on disk and its server in this process, which may crash and be started again."""

    def __init__(self, path, config, seed=0):
        self.path, self.config = path, load_config(config)
        task = self.config.task
        self.task = load_task(task.function, task.options, path, self.config.seed, False)
        self.shards = make_shards(self.config, self.task)
        self.chance, self.num_peers = random.Random(seed), 0
        self.worker_model = build_model(self.task, self.config.seed)
        RunDirectory.create(path, to_toml(self.config)).close()
        self.start()

    def start(self, resume=False, **changes):
        """Start a server on the directory, as `serve` does."""
        config = self.config
        self.notes, self.wire = [], Wire()
        self.directory = RunDirectory.open(self.path, mode="write")
        self.directory.next_incarnation()
        self.flat = build_model(self.task, config.seed)
        vectors = self.vectors = Vectors(self.flat, make_update(config, self.flat), kept_of_jobs(config))
        evaluations = Evaluations(config, self.path / "snapshots")
        self.saver = Saver(config, self.directory, evaluations, self.notes.append)
        watch, clock, kept = Stopwatch(), Clock(), False
        if resume:
            back = recover(config, self.task, self.directory, self.flat, vectors, evaluations, self.notes.append)
            state, clock, kept = back.state, back.clock, back.kept
        else:
            state = make_state(config, self.directory.incarnation)
            begin_journal(config, self.directory, state)
        self.server = Server(config, state, self.flat, vectors, self.directory, self.wire, clock, watch, evaluations,
                             self.saver, self.notes.append)  # fmt: skip
        self.members, self.jobs = {}, deque()  # peer -> worker; (peer, Job, payload)
        if resume:
            self.server.resume(kept)

    @property
    def state(self):
        return self.server.state

    def say(self, peer, message, payload=b""):
        self.wire.incoming.append(Received(peer, encode(message), [memoryview(payload)] if payload else []))
        while self.wire.incoming:
            self.server.receive(0.0, [])
        self.hear()

    def hear(self):
        while self.wire.sent:
            peer, reply, payload = self.wire.sent.popleft()
            match reply:
                case wire.Welcome():
                    self.members[peer] = reply.worker
                case wire.Job():
                    self.jobs.append((peer, reply, payload))
                case wire.Cancel():
                    self.jobs = deque(job for job in self.jobs if job[1].job != reply.job)

    def join_all(self, num_workers):
        for worker in range(num_workers):
            self.join(worker)

    def join(self, worker):
        self.num_peers += 1
        peer = b"peer%d" % self.num_peers
        self.say(peer, Hello(protocol=PROTOCOL_VERSION, role="worker", worker=worker, layout=self.flat.layout.digest,
                             task=task_digest(self.config), host="h", pid=self.num_peers, jobs=()))  # fmt: skip

    def kill(self, worker):
        peer = next(peer for peer, number in self.members.items() if number == worker)
        del self.members[peer]
        self.jobs = deque(job for job in self.jobs if job[0] != peer)
        self.say(peer, wire.Goodbye("killed"))

    def answer(self):
        """The oldest job of a worker that has one is computed and answered."""
        busy = sorted({peer for peer, _, _ in self.jobs})
        peer = self.chance.choice(busy)
        entry = next(job for job in self.jobs if job[0] == peer)
        self.jobs.remove(entry)
        _, job, payload = entry
        flat = self.worker_model
        flat.state_S.copy_(torch.frombuffer(bytearray(payload), dtype=torch.float32))
        result = compute_job(self.config, self.task, flat, self.members[peer], job.job, self.shards)
        gradient = Gradient(job.job, job.version, result.loss, result.samples, 0.01, 0.0, 0.0, 0.0)
        self.say(peer, gradient, bytes(flat.answer_view()))

    def keep_house(self):
        self.server._next_housekeeping_s = time.monotonic()
        self.server.housekeeping()
        self.hear()

    def answers(self, number):
        for _ in range(number):
            if self.server.finish is None:
                self.answer()

    def save(self):
        """A checkpoint now, as when one is due."""
        self.saver.resume_at(-1, float("-inf"))
        self.saver.save_if_due(self.state, self.vectors, self.server.clock.now_s(), self.server.watch.times())
        self.saver._running.result()
        assert self.saver._collect()

    def crash(self):
        """End as by kill -9: what is in memory is lost, the lock is free."""
        for appender in self.directory._appenders.values():
            appender._lines.clear()
        self.close()

    def close(self):
        self.saver.close()
        self.directory.close()

    def finish(self):
        """Train to the end of the budget and write all that a server writes then."""
        while self.server.finish is None:
            self.answer()
        wall_s = self.server.clock.now_s()
        self.saver.save_last(self.state, self.vectors, wall_s)
        summary = summarise(self.config, self.state, self.flat, self.server.finish, None, train_loss=None,
                            wall_s=wall_s)  # fmt: skip
        self.directory.write_summary(summary)
        self.close()
        return summary
