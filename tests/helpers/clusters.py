"""Whole clusters of real processes for tests: a tiny task, a display that acts on what happens, who is there."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from asgd.api import replay
from asgd.run.ledger import check_trace

TASK = """
import torch
from torch import nn
from torch.nn import functional as F
from asgd import Task, TensorData

def tiny(seed, norm=False):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(256, 12, generator=generator)
    targets = (inputs[:, :3].sum(1) > 0).long()
    def model():
        return nn.Sequential(nn.Linear(12, 16), *([nn.BatchNorm1d(16)] if norm else []), nn.ReLU(), nn.Linear(16, 2))
    accuracy = lambda outputs, targets: (outputs.argmax(1) == targets).float().mean()
    data = TensorData(inputs, targets)
    return Task(model, F.cross_entropy, data, data, {"accuracy": accuracy})

def broken(seed):
    task = tiny(seed)
    def loss(outputs, targets):
        raise RuntimeError("the loss is broken")
    return Task(task.model, loss, task.train)
"""


class Watcher:
    """A display that lets a test act on what happens: calls `on_status` with each status."""

    def __init__(self, on_status=lambda status: None):
        self.on_status, self.statuses, self.notes = on_status, [], []

    def update(self, status):
        self.statuses.append(status)
        self.on_status(status)

    def note(self, message):
        self.notes.append(message)


def tiny_config(folder):
    """Four workers on a tiny task, 200 updates."""
    (folder / "tiny.py").write_text(TASK)
    return {
        "seed": 3,
        "task": {"function": f"{folder / 'tiny.py'}:tiny", "batch_size": 8},
        "method": {"step_size": 0.1},
        "cluster": {"num_workers": 4, "start_timeout_s": 40.0},
        "budget": {"versions": 200},
    }


def check_books(run):
    """Conservation and everything else that trace.jsonl alone can show, and the whole run again to the bit."""
    assert check_trace(run.trace, run.summary.outstanding) == []
    again = replay(run.path, check=True)
    assert again.differences == [] and again.parameters_sha256 == run.summary.parameters_sha256


def processes_of(watcher):
    return {w.pid for status in watcher.statuses for w in status.workers if w.pid}


def children_named(path, role):
    """Process ids of a role of the run in `path`, by its log, which the kernel says they have open."""
    log = str(path / "logs" / f"{role}.log")
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "fd" / "1") == log:
                found.append(int(entry.name))
    return found


def assert_gone(pids):
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def kill_once(worker, at_version):
    killed = []

    def act(status):
        pid = next((w.pid for w in status.workers if w.worker == worker), None)
        if status.version >= at_version and pid and not killed:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    return killed, act


def restarting_config(folder):
    """As `tiny_config`, with jobs of 20 ms and a checkpoint every 20 versions: the server can be killed between."""
    config = tiny_config(folder)
    config["cluster"]["speeds"] = {"profile": "equal", "seconds": 0.02}
    config["checkpoints"] = {"every_versions": 20}
    return config


class ServerKiller:
    """Kills the server, each time that a status shows the next of some versions (or a phase)."""

    def __init__(self, path, versions=(), phase=None):
        self.path, self.versions, self.phase, self.killed = path, list(versions), phase, []

    def __call__(self, status):
        if (self.versions and status.version >= self.versions[0]) or status.phase == self.phase:
            for pid in children_named(self.path, "server"):
                if pid not in self.killed:
                    self.versions, self.phase = self.versions[1:], None
                    self.killed.append(pid)
                    os.kill(pid, signal.SIGKILL)


def when(condition, act):
    """A thread that does something once a condition holds; it gives up after 40 s."""

    def watch():
        limit_s, pause = time.monotonic() + 40.0, threading.Event()
        while not (found := condition()) and time.monotonic() < limit_s:
            pause.wait(0.002)
        act(found)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread
