"""Whole clusters of real processes on this machine: few, small, stopped by what happens in them, never by sleeping."""

from __future__ import annotations

import os
import signal

import msgspec
import pytest
import torch
from helpers.clusters import Watcher, assert_gone, check_books, children_named, kill_once, processes_of, tiny_config
from torch.nn import functional as F

from asgd.api import replay, resume, train
from asgd.core.schedules import Schedule
from asgd.errors import ConfigError, RunError
from asgd.learn.gradient import build_model
from asgd.learn.order import sample_indices
from asgd.learn.task import load_task
from asgd.run.ledger import check_trace
from asgd.run.records import JOBS_PER_INCARNATION
from asgd.run.result import Run
from asgd.run.signals import StopRequests

pytestmark = pytest.mark.cluster


@pytest.fixture
def config(tmp_path):
    return tiny_config(tmp_path)


def test_a_run_from_start_to_summary(config, tmp_path):
    watcher = Watcher()
    run = train(config, run_dir=tmp_path / "run", display=watcher)
    summary = run.summary
    assert summary.finished and summary.versions == 200 == summary.used
    assert summary.concurrency == 4 and len(summary.outstanding) == 3
    # Constant concurrency, nothing discarded: applied + in flight = T (C - 1).
    assert sum(row.delay for row in run.trace) + sum(summary.outstanding) == 200 * 3
    check_books(run)
    assert run.metrics[0].version == 0 and run.metrics[-1].version == 200
    assert run.metrics[-1].test_accuracy == summary.test_accuracy > 0.8
    assert {row.worker for row in run.trace} == {0, 1, 2, 3}
    assert run.model()(torch.zeros(1, 12)).shape == (1, 2)
    assert_gone(processes_of(watcher))
    assert not list((run.path / "snapshots").glob("*")) if (run.path / "snapshots").exists() else True


def test_one_worker_is_plain_sgd_bit_for_bit(config, tmp_path):
    """Momentum, Nesterov, weight decay, warm-up, cosine, batch normalisation: through real processes and sockets."""
    steps = 60
    config |= {
        "task": config["task"] | {"options": {"norm": True}},
        "optimizer": {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3},
        "schedule": {"name": "cosine", "over": "versions", "warmup": 10},
        "cluster": {"num_workers": 1},
        "budget": {"versions": steps},
    }
    run = train(config, run_dir=tmp_path / "run")

    task = load_task(config["task"]["function"], {"norm": True}, tmp_path, 3, False)
    flat = build_model(task, 3)
    schedule = Schedule(0.1, "cosine", total=steps, warmup=10)
    module = task.model()
    module.load_state_dict(flat.module.state_dict())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
    for step in range(steps):
        inputs, targets = task.train.batch(sample_indices(256, 3, 0, step, 8), None)
        optimizer.param_groups[0]["lr"] = schedule(step, 1)
        optimizer.zero_grad()
        F.cross_entropy(module(inputs), targets).backward()
        optimizer.step()
    trained = run.model().state_dict()
    for name, expected in module.state_dict().items():
        if name != "1.num_batches_tracked":
            assert torch.equal(trained[name], expected), name
    assert all(row.delay == 0 for row in run.trace)


@pytest.mark.parametrize("method", ["asynchronous", "minibatch"])
def test_kill_one_of_four(config, tmp_path, method):
    config["method"]["name"] = method
    config["cluster"]["speeds"] = {"profile": "equal", "seconds": 0.02}
    killed, act = kill_once(1, at_version=20)
    watcher = Watcher(act)
    run = train(config, run_dir=tmp_path / "run", display=watcher)
    assert killed, "the run was over before the test could kill a worker"
    assert run.summary.versions == 200 and run.summary.finished
    lost = [row for row in run.trace if row.action == "lost"]
    assert [row.worker for row in lost] in ([1], []) and (method == "minibatch" or lost)
    # The launcher tells of the death; the server may find it out first, by a job that it can't deliver.
    assert all(row.reason == "killed by SIGKILL" or row.reason.startswith("unreachable: ") for row in lost)
    assert run.summary.restarts == 1
    assert any("worker 1 died: killed by SIGKILL" in message for s in watcher.statuses for message in s.messages)
    last_of_1 = max(row.arrival for row in run.trace if row.worker == 1)
    assert not lost or last_of_1 > lost[0].arrival, "it was restarted and works again"
    check_books(run)
    assert_gone(processes_of(watcher))


def test_the_last_death_ends_the_run_with_its_checkpoint(config, tmp_path):
    config["cluster"] |= {"num_workers": 2, "max_restarts": 0, "speeds": {"profile": "equal", "seconds": 0.02}}
    config["budget"] = {"versions": 100_000}
    kills = [kill_once(0, 20), kill_once(1, 40)]
    watcher = Watcher(lambda status: [act(status) for _, act in kills])
    with pytest.raises(RunError, match="the last worker died: killed by SIGKILL"):
        train(config, run_dir=tmp_path / "run", display=watcher)
    assert list((tmp_path / "run" / "checkpoints").glob("*.safetensors"))
    assert_gone(processes_of(watcher))


def test_more_threads_than_one(config, tmp_path):
    """The launcher must not have used its own thread pool before it forks."""
    config["cluster"] |= {"threads_per_worker": 2, "num_workers": 2}
    assert train(config, run_dir=tmp_path / "run").summary.finished


def test_the_evaluator_is_started_again(config, tmp_path):
    config["cluster"]["speeds"] = {"profile": "equal", "seconds": 0.02}
    config["evaluation"] = {"every_versions": 40}
    killed = []

    def act(status):
        if status.version >= 60 and not killed:
            [pid] = children_named(tmp_path / "run", "evaluator")
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    run = train(config, run_dir=tmp_path / "run", display=Watcher(act))
    assert killed
    assert [row.version for row in run.metrics] == [0, 40, 80, 120, 160, 200]
    assert run.summary.evaluations_missing == 0 and run.summary.test_accuracy is not None


@pytest.mark.parametrize("mode", ["checkpoint", "exact"])
def test_a_killed_server_is_resumed(config, tmp_path, mode):
    config["cluster"] |= {"max_server_restarts": 0, "speeds": {"profile": "equal", "seconds": 0.01}}
    config["checkpoints"] = {"every_versions": 20}
    config["recovery"] = {"mode": mode}
    killed = []

    def act(status):
        if status.version >= 70 and not killed:
            killed.append(status.version)
            [pid] = children_named(tmp_path / "run", "server")
            os.kill(pid, signal.SIGKILL)

    watcher = Watcher(act)
    with pytest.raises(RunError, match="the server died: killed by SIGKILL"):
        train(config, run_dir=tmp_path / "run", display=watcher)
    assert_gone(processes_of(watcher))
    assert not (tmp_path / "run" / "summary.json").exists()
    until_then = replay(tmp_path / "run")
    assert until_then.is_exact and until_then.version >= 70
    run = resume(tmp_path / "run")
    assert run.summary.versions == 200 and run.summary.finished
    assert [row.version for row in run.trace if row.steps] == list(range(200))
    check_books(run)
    undone = tmp_path / "run" / "trace.undone.jsonl"
    jobs = [msgspec.json.decode(line)["job"] for line in undone.read_bytes().splitlines()] if undone.exists() else []
    assert not set(jobs) & {row.job for row in run.trace if row.action != "lost"}, "job numbers are unique"
    if mode == "exact":
        num_jobs = sum(row.job < JOBS_PER_INCARNATION for row in run.trace)
        assert num_jobs == until_then.arrivals + 4 and jobs == [], "nothing but the jobs in flight is lost"


@pytest.mark.parametrize("key", ["seed=4", "method.step_size=0.2", "task.options.norm=true", "method.name=minibatch"])
def test_a_run_goes_on_as_it_was_started(config, tmp_path, key):
    config["budget"] = {"versions": 5}
    run = train(config, run_dir=tmp_path / "run")
    before = (run.path / "config.toml").read_text()
    with pytest.raises(ConfigError, match=r"the run was started with .* may only change budget, evaluation"):
        resume(run.path, overrides=[key])
    assert (run.path / "config.toml").read_text() == before
    assert (run.path / "summary.json").exists()


def test_stop_and_resume(config, tmp_path):
    config["cluster"]["speeds"] = {"profile": "equal", "seconds": 0.01}
    config["optimizer"] = {"momentum": 0.9}
    stops = StopRequests()
    watcher = Watcher(lambda status: stops.ask("interrupted by SIGINT") if 40 <= status.version < 150 else None)
    first = train(config, run_dir=tmp_path / "run", display=watcher, stops=stops)
    stopped_at = first.summary.versions
    assert 40 <= stopped_at < 200 and not first.summary.finished
    assert first.summary.stopped_because == "interrupted by SIGINT"
    check_books(first)
    second = resume(tmp_path / "run")
    assert second.summary.versions == 200 and second.summary.finished
    rows = second.trace
    assert [row.version for row in rows if row.steps] == list(range(200))
    assert len({row.job for row in rows}) == len(rows)
    assert sum(row.action == "lost" for row in rows) == len(first.summary.outstanding)
    check_books(second)
    assert rows[-1].time_s > first.summary.wall_s


def test_a_task_that_fails_in_its_first_job_is_one_sentence(config, tmp_path):
    config["task"]["function"] = config["task"]["function"].replace(":tiny", ":broken")
    watcher = Watcher()
    with pytest.raises(ConfigError, match="the loss is broken"):
        train(config, run_dir=tmp_path / "run", display=watcher)
    assert not Run(tmp_path / "run").summary.finished
    assert {row.action for row in Run(tmp_path / "run").trace} == {"lost"}


def test_a_task_that_cannot_be_loaded_is_one_sentence(config, tmp_path):
    config["task"]["options"] = {"width": 3}
    with pytest.raises(ConfigError, match=r"task.options.width"):
        train(config, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_evaluation_after_training(config, tmp_path):
    config["evaluation"] = {"evaluate": "after", "every_versions": 50}
    run = train(config, run_dir=tmp_path / "run")
    assert [row.version for row in run.metrics] == [0, 50, 100, 150, 200]
    assert run.summary.test_accuracy is not None
    assert not list((run.path / "snapshots").iterdir())


@pytest.mark.parametrize("mode", ["checkpoint", "exact"])
def test_a_run_that_has_ended_is_resumed_without_starting_anybody(config, tmp_path, mode):
    """They would look for a server that has nothing to do and is gone before they are there."""
    config["budget"], config["recovery"] = {"versions": 30}, {"mode": mode}
    first = train(config, run_dir=tmp_path / "run")
    log = tmp_path / "run" / "logs" / "worker-0.log"
    before, metrics = log.read_text(), first.metrics
    again = resume(tmp_path / "run")
    assert log.read_text() == before and again.metrics == metrics
    assert again.summary.finished and again.summary.parameters_sha256 == first.summary.parameters_sha256
    assert (again.summary.lost, again.trace) == (first.summary.lost, first.trace), "what was in flight still is"
    check_books(again)


def test_a_worker_without_worth_is_not_started_again(config, tmp_path):
    """Its gradients are not finite, whatever it is given (so nothing that this task computes can be replayed)."""
    bad = """
import os
def faulty(seed):
    task = tiny(seed)
    def loss(outputs, targets):
        is_bad = "worker-0" in os.readlink("/proc/self/fd/1")
        return F.cross_entropy(outputs, targets) * (float("nan") if is_bad else 1.0)
    return Task(task.model, loss, task.train)
"""
    with (tmp_path / "tiny.py").open("a") as file:
        file.write(bad)
    config["task"]["function"] = config["task"]["function"].replace(":tiny", ":faulty")
    config["method"]["quarantine_after"] = 5
    config["evaluation"] = {"evaluate": "never"}
    run = train(config, run_dir=tmp_path / "run", display=Watcher())
    assert run.summary.finished and run.summary.versions == 200 and set(run.summary.quarantined) == {0}
    assert run.summary.restarts == 0 and check_trace(run.trace, run.summary.outstanding) == []
    assert (run.path / "logs" / "worker-0.log").read_text().count("quarantined: 5 of its gradients") >= 1
