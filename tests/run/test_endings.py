"""Whole clusters at the end of their run: the server dies there, somebody asks to stop, an evaluation hangs."""

from __future__ import annotations

import os
import signal
import time

import pytest
from helpers.clusters import TASK, ServerKiller, Watcher, check_books, children_named, restarting_config, when

from asgd.api import train
from asgd.run.processes import LEAVE_LIMIT_S
from asgd.run.signals import StopRequests

pytestmark = pytest.mark.cluster


@pytest.fixture
def config(tmp_path):
    return restarting_config(tmp_path)


def test_a_server_that_is_killed_while_the_last_versions_are_evaluated(config, tmp_path):
    config["evaluation"] = {"evaluate": "after", "every_versions": 20}
    killer = ServerKiller(tmp_path / "run", phase="evaluating")
    run = train(config, run_dir=tmp_path / "run", display=Watcher(killer))
    assert killer.killed and run.summary.finished and run.summary.versions == 200
    assert run.metrics[-1].version == 200 and run.summary.test_accuracy is not None
    check_books(run)


def test_a_server_that_is_killed_before_its_summary_costs_no_wait(config, tmp_path):
    """Its successor finds nothing left to do: the workers that were started for it are not waited for."""
    config["evaluation"] = {"evaluate": "never"}
    path, killed_s = tmp_path / "run", []
    last, gate = path / "checkpoints" / "version-000000000200.safetensors", path / ".summary.json.tmp"

    def act(status):
        if status.version < 200 and not gate.exists() and not killed_s:
            os.mkfifo(gate)  # opening it blocks the server before its summary

    def kill(found):
        [pid] = children_named(path, "server")
        killed_s.append(time.monotonic())
        gate.unlink()
        os.kill(pid, signal.SIGKILL)

    thread = when(last.exists, kill)
    run = train(config, run_dir=path, display=Watcher(act))
    thread.join()
    assert time.monotonic() - killed_s[0] < LEAVE_LIMIT_S
    assert run.summary.server_restarts == 1 and run.summary.versions == 200
    check_books(run)


def test_a_stop_is_not_forgotten_when_the_server_dies_while_it_ends(config, tmp_path):
    config["evaluation"] = {"evaluate": "never"}
    config["budget"] = {"versions": 100_000}
    path, stops = tmp_path / "run", StopRequests()
    gate = path / ".summary.json.tmp"

    def act(status):
        if status.version > 20 and not gate.exists() and not stopped:
            os.mkfifo(gate)  # opening it blocks the server before its summary
            stopped.append(status.version)
            stops.ask("interrupted by SIGINT")

    def is_ending():
        """The server, once it has dismissed its workers."""
        is_over = stopped and (path / "logs" / "worker-0.log").exists() and not children_named(path, "worker-0")
        return children_named(path, "server") if is_over else []

    def kill(found):
        gate.unlink()
        os.kill(found[0], signal.SIGKILL)

    stopped = []
    thread = when(is_ending, kill)
    run = train(config, run_dir=path, display=Watcher(act), stops=stops)
    thread.join()
    assert run.summary.server_restarts == 1 and not run.summary.finished and run.summary.versions < 1000
    assert run.summary.stopped_because == "interrupted by SIGINT"
    check_books(run)


def test_an_evaluation_that_nobody_waits_for_any_more_costs_no_wait(config, tmp_path):
    config["budget"] = {"versions": 20}
    config["evaluation"] = {"evaluate": "after"}
    os.mkfifo(tmp_path / "gate")
    metric = f"lambda outputs, targets: open({str(tmp_path / 'gate')!r}).read()"  # for ever
    (tmp_path / "tiny.py").write_text(TASK.replace('{"accuracy": accuracy}', f'{{"accuracy": {metric}}}'))
    stops, asked_s = StopRequests(), []

    def act(status):
        if status.phase == "evaluating" and not asked_s:
            asked_s.append(time.monotonic())
            stops.ask("interrupted by SIGINT")

    run = train(config, run_dir=tmp_path / "run", display=Watcher(act), stops=stops)
    assert time.monotonic() - asked_s[0] < LEAVE_LIMIT_S
    assert run.summary.finished and run.summary.evaluations_missing > 0 and run.metrics == []
    check_books(run)
