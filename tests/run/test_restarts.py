"""Whole clusters whose processes are killed, stopped and left hanging: faults at versions, seen from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import msgspec
import pytest
from helpers.clusters import (
    ServerKiller,
    Watcher,
    assert_gone,
    check_books,
    children_named,
    processes_of,
    restarting_config,
)

from asgd.api import train
from asgd.bench.chaos.counting import all_rows
from asgd.config import load_config, task_digest, to_toml
from asgd.core.trace import TraceRow
from asgd.errors import RunError
from asgd.learn.gradient import build_model
from asgd.learn.task import load_task
from asgd.net.messages import PROTOCOL_VERSION, Hello, Job, Refused, Welcome, decode_reply, encode
from asgd.net.zeromq import ZmqClient
from asgd.run.records import JOBS_PER_INCARNATION
from asgd.run.signals import StopRequests

pytestmark = pytest.mark.cluster


@pytest.fixture
def config(tmp_path):
    return restarting_config(tmp_path)


def check_restarted(run, times, watcher, killer):
    summary = run.summary
    assert summary.finished and summary.versions == 200 and len(killer.killed) == summary.server_restarts == times
    assert [row.version for row in run.trace if row.steps] == list(range(200))
    assert max(row.job for row in run.trace) // JOBS_PER_INCARNATION == times
    check_books(run)
    answered = [row.job for row in all_rows(run.path) if row.action != "lost"]
    assert len(set(answered)) == len(answered), "no job was answered twice, whatever was undone"
    assert_gone(processes_of(watcher) | set(killer.killed))
    # Nobody else was started again: the same four processes worked before and after.
    assert len(processes_of(watcher)) == 4 and summary.restarts == 0


@pytest.mark.parametrize("mode", ["checkpoint", "exact"])
@pytest.mark.parametrize("method", ["asynchronous", "minibatch", "ringmaster"])
def test_the_server_is_started_again_and_the_others_come_back(config, tmp_path, method, mode):
    config["method"]["name"] = method
    config["recovery"] = {"mode": mode}
    killer = ServerKiller(tmp_path / "run", [50])
    watcher = Watcher(killer)
    run = train(config, run_dir=tmp_path / "run", display=watcher)
    check_restarted(run, 1, watcher, killer)
    assert "the server died: killed by SIGKILL; it is started again (1 of 3 times)" in watcher.notes
    [listening] = {m for s in watcher.statuses for m in s.messages if m.startswith("listening at ipc://")}
    assert not os.path.exists(os.path.dirname(listening.removeprefix("listening at ipc://")))
    for worker in range(4):
        assert "back at the server, which was started again" in (run.path / "logs" / f"worker-{worker}.log").read_text()


def test_a_server_that_is_killed_before_its_first_periodic_checkpoint_goes_on_from_version_0(config, tmp_path):
    config["checkpoints"] = {"every_versions": 100_000}
    config["method"]["jobs_per_worker"] = 2
    killer = ServerKiller(tmp_path / "run", [1, 30])
    watcher = Watcher(killer)
    run = train(config, run_dir=tmp_path / "run", display=watcher)
    check_restarted(run, 2, watcher, killer)


class FirstServerKiller:
    """Kills the first server as soon as its process is there."""

    turn_s = 0.01

    def __init__(self):
        self.killed = None

    def address(self, role, worker, address):
        return address

    def look(self, cluster):
        servers = [pid for pid, process in cluster.processes.items() if process.role == "server"]
        if servers and self.killed is None:
            assert cluster.server_address is None, "it listens already"
            self.killed = servers[0]
            cluster.signal(self.killed, signal.SIGKILL)


def test_a_server_that_is_killed_before_it_listens_is_started_again(config, tmp_path):
    watcher = FirstServerKiller()
    run = train(config, run_dir=tmp_path / "run", watcher=watcher)
    assert run.summary.finished and run.summary.server_restarts == 1 and run.summary.versions == 200
    check_books(run)
    assert_gone({watcher.killed})


def test_in_mode_exact_a_kill_costs_no_update_and_next_to_no_job(config, tmp_path):
    """What the workers hold goes on; only a job whose sending died with the server is lost."""
    config["recovery"] = {"mode": "exact"}
    killer = ServerKiller(tmp_path / "run", [50, 100])
    watcher = Watcher(killer)
    run = train(config, run_dir=tmp_path / "run", display=watcher)
    check_restarted(run, 2, watcher, killer)
    assert not (run.path / "trace.undone.jsonl").exists()
    assert any("is back and goes on with job" in message for s in watcher.statuses for message in s.messages)
    assert run.summary.lost <= 4


def test_a_server_that_stands_still_for_too_long_is_killed_and_started_again(config, tmp_path):
    config["cluster"] |= {"server_timeout_s": 1.0}
    stopped = []

    def act(status):
        if status.version > 50 and not stopped:
            stopped.extend(children_named(tmp_path / "run", "server"))
            os.kill(stopped[0], signal.SIGSTOP)

    watcher = Watcher(act)
    run = train(config, run_dir=tmp_path / "run", display=watcher)
    assert "the server has said nothing for 1 s: it is killed" in watcher.notes
    assert run.summary.finished and run.summary.versions == 200 and run.summary.server_restarts == 1
    assert_gone(stopped)
    check_books(run)


def test_a_server_that_dies_too_often_ends_the_command_with_what_to_do(config, tmp_path):
    config["cluster"]["max_server_restarts"] = 1
    killer = ServerKiller(tmp_path / "run", [30, 60])
    watcher = Watcher(killer)
    with pytest.raises(RunError, match=r"the server died again after 1 restarts: killed by SIGKILL .* --resume"):
        train(config, run_dir=tmp_path / "run", display=watcher)
    assert_gone(processes_of(watcher) | set(killer.killed))


def test_a_server_that_was_stopped_for_longer_than_a_lease_takes_nobody_for_dead(config, tmp_path):
    config["cluster"] |= {"min_lease_s": 0.5}
    stopped = []

    def act(status):
        if status.version >= 40 and not stopped:
            [pid] = children_named(tmp_path / "run", "server")
            os.kill(pid, signal.SIGSTOP)
            stopped.append(threading.Timer(1.5, os.kill, (pid, signal.SIGCONT)))  # the fault itself takes that long
            stopped[0].start()

    run = train(config, run_dir=tmp_path / "run", display=Watcher(act))
    assert stopped and run.summary.finished and run.summary.lost == 0 and run.summary.server_restarts == 0
    check_books(run)


def worker_of(status, number):
    return next((worker for worker in status.workers if worker.worker == number), None)


def test_a_stopped_worker_is_given_up_and_comes_back(config, tmp_path):
    config["cluster"] |= {"min_lease_s": 0.5, "max_lease_s": 0.5}
    config["budget"] = {"versions": 100_000}
    stops, seen = StopRequests(), {}

    def act(status):
        worker = worker_of(status, 2)
        if status.version >= 40 and "pid" not in seen:
            seen["pid"] = worker.pid
            os.kill(worker.pid, signal.SIGSTOP)
        elif "pid" in seen and "used" not in seen and worker.state == "gone":
            seen["used"] = worker.applied
            os.kill(seen["pid"], signal.SIGCONT)
        elif "used" in seen and worker.applied > seen["used"] + 3:
            stops.ask("seen enough")

    run = train(config, run_dir=tmp_path / "run", display=Watcher(act), stops=stops)
    [lost] = [row for row in run.trace if row.action == "lost"]
    assert (lost.worker, lost.reason) == (2, "overdue")
    assert run.summary.restarts == 0 and run.summary.refused == 1, "its late answer came, and was of no use any more"
    assert any(row.worker == 2 and row.action == "apply" for row in run.trace[lost.arrival :])
    check_books(run)


def test_a_worker_that_is_killed_three_times(config, tmp_path):
    pids = []

    def act(status):
        worker = worker_of(status, 1)
        if len(pids) < 3 and worker.pid and worker.pid not in pids and worker.state == "computing":
            pids.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)

    config["budget"] = {"versions": 400}
    run = train(config, run_dir=tmp_path / "run", display=Watcher(act))
    assert len(pids) == 3 == run.summary.restarts and run.summary.finished
    assert {row.worker for row in run.trace if row.action == "lost"} == {1}
    assert run.trace[-1].arrival > [row for row in run.trace if row.action == "lost"][-1].arrival
    check_books(run)
    assert_gone(pids)


def test_a_worker_whose_connection_is_half_open_costs_its_lease_and_no_more(config, tmp_path):
    """It says hello, is given a job, and is never heard again, while its connection stays."""
    config["cluster"] |= {"address": f"ipc://{tmp_path}/s", "min_lease_s": 0.5, "max_lease_s": 0.5}
    config["budget"] = {"versions": 100_000}
    resolved = load_config(config)
    flat = build_model(load_task(resolved.task.function, {}, tmp_path, 3, False), 3)
    stops, replies = StopRequests(), []
    with ZmqClient(f"ipc://{tmp_path}/s") as client:

        def act(status):
            if status.version >= 20 and not replies:
                hello = Hello(PROTOCOL_VERSION, "worker", 9, flat.layout.digest, task_digest(resolved), "h", 1, ())
                client.send(encode(hello))
                replies.extend(decode_reply(client.recv(20.0).header) for _ in range(2))
            half_open = worker_of(status, 9)
            if half_open is not None and half_open.lost:
                stops.ask("seen enough")

        run = train(config, run_dir=tmp_path / "run", display=Watcher(act), stops=stops)
    assert isinstance(replies[0], Welcome) and isinstance(replies[1], Job)
    [lost] = [row for row in run.trace if row.action == "lost"]
    assert (lost.worker, lost.job, lost.reason) == (9, replies[1].job, "overdue")
    check_books(run)


def test_a_worker_joins_a_running_cluster_by_tcp_and_survives_its_server(config, tmp_path):
    config["cluster"] |= {"address": "tcp://127.0.0.1:0", "num_workers": 2}
    config["budget"] = {"versions": 100_000}
    (tmp_path / "config.toml").write_text(to_toml(load_config(config)))
    stops, seen, killer = StopRequests(), {}, ServerKiller(tmp_path / "run")

    def act(status):
        if status.version >= 20 and "joined" not in seen:
            [line] = [m for m in status.messages if m.startswith("listening at ")]
            command = [sys.executable, "-m", "asgd", "worker", str(tmp_path / "config.toml")]
            command += ["--connect", line.removeprefix("listening at ")]
            seen["joined"] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        joined = worker_of(status, 2)  # the numbers 0 and 1 are the supervisor's
        if joined is None:
            return
        if not killer.killed and joined.applied >= 5:
            killer.versions = [0]
            killer(status)
        elif killer.killed and any(row.worker == 2 and row.job >= JOBS_PER_INCARNATION for row in rows_so_far()):
            stops.ask("seen enough")

    def rows_so_far():
        whole = (tmp_path / "run" / "trace.jsonl").read_bytes().rpartition(b"\n")[0]
        return [row for row in map(msgspec.json.Decoder(TraceRow).decode, whole.splitlines()) if row.action == "apply"]

    try:
        run = train(config, run_dir=tmp_path / "run", display=Watcher(act), stops=stops)
        output, _ = seen["joined"].communicate(timeout=30)
    finally:
        if "joined" in seen and seen["joined"].poll() is None:
            seen["joined"].kill()
    assert seen["joined"].returncode == 0, output
    assert "worker 2 of run run at tcp://127.0.0.1:" in output and "which was started again (incarnation 1)" in output
    assert run.summary.server_restarts == 1
    check_books(run)


def test_a_client_whose_server_never_comes_back_says_so(config, tmp_path):
    """Not for ever, and with a sentence: `cluster.server_timeout_s` after the connection broke."""
    from asgd.net.zeromq import ZmqServer
    from asgd.run.worker import run_worker

    resolved = load_config(config, ["cluster.server_timeout_s=1.0"])
    task = load_task(resolved.task.function, {}, tmp_path, 3, False)
    flat, notes = build_model(task, 3), []
    server = ZmqServer(f"ipc://{tmp_path}/s")

    def serve():
        received = server.recv(20.0)
        welcome = Welcome(0, flat.state_view().nbytes, "r", 0.0, time.monotonic(), 0)
        server.send(received.peer, encode(Refused("wait", may_retry=True)))
        server.send(server.recv(20.0).peer, encode(welcome))
        server.close()

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(RunError, match=r"was lost \(the connection broke\) and did not come back within 1 s"):
        run_worker(resolved, task, flat, f"ipc://{tmp_path}/s", 0, StopRequests(), notes.append)
    thread.join(20.0)
    assert any("saying hello again" in note for note in notes)
