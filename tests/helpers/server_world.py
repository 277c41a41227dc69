"""A server in this process, and a transport under the test's control."""

from __future__ import annotations

from collections import deque

from asgd.config import load_config, task_digest, to_toml
from asgd.learn.gradient import build_model
from asgd.learn.tasks import quadratic
from asgd.learn.update import Update
from asgd.net import messages as wire
from asgd.net.messages import PROTOCOL_VERSION, Gradient, Hello, decode_reply, encode
from asgd.net.transport import PeerGone, Received
from asgd.run.build import make_state
from asgd.run.clock import Clock
from asgd.run.evaluations import Evaluations
from asgd.run.ledger import check_trace
from asgd.run.records import RunDirectory
from asgd.run.recovery import begin_journal
from asgd.run.saving import Saver
from asgd.run.server import Server
from asgd.run.stopwatch import Stopwatch
from asgd.run.vectors import Vectors

CONFIG = {
    "task": {"function": "quadratic", "options": {"dimension": 4}, "batch_size": 2},
    "method": {"step_size": 0.1, "jobs_per_worker": 2},
    "cluster": {"num_workers": 2},
    "budget": {"versions": 1000},
    "evaluation": {"evaluate": "never"},
}


class Wire:
    """A server transport: what comes in is put into `incoming`, what goes out is kept, and sends may fail by number."""

    address, bytes_in, bytes_out = "test", 0, 0

    def __init__(self):
        self.incoming, self.sent, self.gone, self.fail_at, self.sends = deque(), [], set(), set(), 0
        self.admitted, self.cut = [], []

    def admit(self, peer):
        self.admitted.append(peer)

    def cut_off(self, peer):
        self.cut.append(peer)

    def recv(self, timeout_s, wake=()):
        return self.incoming.popleft() if self.incoming else None

    def send(self, peer, header, payload=None):
        self.sends += 1
        if self.sends in self.fail_at:
            self.gone.add(peer)
        if peer in self.gone:
            raise PeerGone("it is gone")
        self.sent.append((peer, decode_reply(header)))


class World:
    def __init__(self, path, security=None, evaluation=None, cluster=None, **method):
        changes = {"security": security, "evaluation": evaluation, "cluster": cluster, "method": method}
        config = load_config(CONFIG | {part: CONFIG.get(part, {}) | (new or {}) for part, new in changes.items()})
        self.config, self.flat = config, build_model(quadratic(dimension=4), 0)
        RunDirectory.create(path, to_toml(config)).close()
        self.directory = RunDirectory.open(path, mode="write")
        self.wire, self.notes = Wire(), []
        evaluations = Evaluations(config, path)
        self.saver = Saver(config, self.directory, evaluations, self.notes.append)
        state = make_state(config)
        begin_journal(config, self.directory, state)
        self.server = Server(
            config,
            state,
            self.flat,
            Vectors(self.flat, Update(self.flat)),
            self.directory,
            self.wire,
            Clock(),
            Stopwatch(),
            evaluations,
            self.saver,
            self.notes.append,
        )

    def say(self, peer, message, payload=b"", name=""):
        frames = [memoryview(payload)] if payload else []
        self.wire.incoming.append(Received(peer, encode(message), frames, name))
        while self.wire.incoming:
            self.server.receive(0.0, [])

    def hello(self, peer, worker=-1, pid=1, name="", **changes):
        plain = {"protocol": PROTOCOL_VERSION, "role": "worker", "worker": worker, "host": "h", "pid": pid}
        plain |= {"jobs": ()}
        plain |= {"layout": self.flat.layout.digest, "task": task_digest(self.config)}
        self.say(peer, Hello(**(plain | changes)), name=name)

    def answer(self, peer, job, samples=2):
        gradient = Gradient(job.job, job.version, 1.0, samples, 0.1, 0.0, 0.0, 0.0)
        self.say(peer, gradient, bytes(self.flat.answer_view().nbytes))

    def jobs_of(self, peer):
        return [message for to, message in self.wire.sent if to == peer and isinstance(message, wire.Job)]

    def last(self, peer):
        return [message for to, message in self.wire.sent if to == peer][-1]

    def close(self):
        """Close what is open; the books must be right."""
        self.saver.close()
        self.server.state.validate()
        self.directory.flush()
        rows = self.directory.read_trace()
        assert check_trace(rows, self.server.state.ledger.in_flight_delays()) == []
        self.directory.close()
