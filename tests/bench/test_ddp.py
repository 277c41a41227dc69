"""The baseline on DistributedDataParallel does what method `minibatch` does, keeps to the speeds, and ends cleanly."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from asgd.api import simulate
from asgd.bench.ddp import DdpRun, check, run_ddp
from asgd.bench.ddp_group import Broken, Trained, _result
from asgd.bench.ddp_rank import Pace, Rounds, _limit_s, endless
from asgd.config import load_config
from asgd.errors import ConfigError, Interrupted, RunError
from asgd.learn.order import sample_indices
from asgd.run.build import make_state
from asgd.run.signals import StopRequests
from asgd.sim.parallel import Failed
from asgd.sim.simulate import emulated
from asgd.sim.virtual import Nothing, Result, VirtualCluster

# Each training batch is noted in a file, with the process, its samples and a number drawn for their augmentation.
TASK = """
import json, os, signal
import torch
from torch import nn
from torch.nn import functional as F
from asgd import Task

class Noted:
    def __init__(self, inputs, targets, log, third_batch):
        self.inputs, self.targets, self.log, self.third_batch, self.calls = inputs, targets, log, third_batch, 0
    def __len__(self):
        return len(self.targets)
    def batch(self, indices, generator):
        if generator is not None:
            noise = torch.randn(len(indices), 1, generator=generator) / 10
            line = json.dumps([os.getpid(), indices.tolist(), float(noise[0])])
            with open(self.log, "a") as file:
                file.write(line + "\\n")
            self.calls += 1
            if self.calls == 3 and self.third_batch:
                try:
                    os.close(os.open(self.log + ".first", os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    pass
                else:  # one rank only
                    os.kill(os.getpid(), self.third_batch)
            return self.inputs[indices] + noise, self.targets[indices]
        return self.inputs[indices], self.targets[indices]

def tiny(seed, log, norm=False, third_batch=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(256, 12, generator=generator)
    targets = (inputs[:, :3].sum(1) > 0).long()
    def model():
        return nn.Sequential(nn.Linear(12, 16), *([nn.BatchNorm1d(16)] if norm else []), nn.ReLU(), nn.Linear(16, 2))
    accuracy = lambda outputs, targets: (outputs.argmax(1) == targets).float().mean()
    data = Noted(inputs, targets, log, third_batch)
    return Task(model, F.cross_entropy, data, data, {"accuracy": accuracy})

def fatal_to_test(seed, log, number=0):
    task = tiny(seed, log)
    def accuracy(outputs, targets):
        os.kill(os.getpid(), number)
    return Task(task.model, task.loss, task.train, task.train, {"accuracy": accuracy})

def broken(seed, log):
    def loss(outputs, targets):
        raise RuntimeError("the loss is broken")
    return Task(tiny(seed, log).model, loss, tiny(seed, log).train)

def without_numbers(seed, log):
    return Task(tiny(seed, log).model, lambda outputs, targets: outputs.sum() * float("nan"), tiny(seed, log).train)
"""
PLAIN = {"method": {"name": "minibatch"}, "budget": {"versions": 20}}


@pytest.fixture
def config(tmp_path, monkeypatch):
    (tmp_path / "tiny.py").write_text(TASK)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return {
        "seed": 3,
        "task": {
            "function": f"{tmp_path / 'tiny.py'}:tiny",
            "batch_size": 8,
            "options": {"log": str(tmp_path / "log")},
        },
        "method": {"name": "minibatch", "step_size": 0.1},
        "cluster": {"num_workers": 3, "speeds": {"profile": "equal", "seconds": 0.01}},
        "budget": {"versions": 20},
    }


def noted(tmp_path):
    """(process, samples, number drawn) of each batch of the log, which is emptied."""
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (tmp_path / "log").unlink()
    return lines


def assert_nothing_is_left(tmp_path):
    pids = {pid for pid, _, _ in noted(tmp_path)}
    assert 1 <= len(pids) <= 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not list((tmp_path / "temporary").iterdir())


class OfOneBatch(Nothing):
    def compute(self, worker, job):
        return Result(1.0, 64, True)


# In one process.


@pytest.mark.parametrize(
    ("overrides", "versions", "gradients"),
    [
        (["budget.versions=20"], 20, 80),
        (["budget.gradients=30"], 7, 30),  # ends within the eighth round, which makes no update
        (["budget.versions=0", "budget.samples=1000", "schedule.name=cosine", "schedule.warmup=300"], 4, 16),
        (["schedule.name=step", "schedule.over=versions", "schedule.milestones=[5,9]", "budget.versions=12"], 12, 48),
        (["method.rule=adadelay", "budget.versions=9"], 9, 36),
    ],
)
def test_rounds_are_those_of_minibatch_in_virtual_time(overrides, versions, gradients):
    config = load_config(PLAIN, ["cluster.speeds.profile=half_slower", "budget.versions=0", *overrides])
    rows = []
    state, num_workers = make_state(config), config.cluster.num_workers
    VirtualCluster(state, num_workers, emulated(config), compute=OfOneBatch(), on_row=rows.append).run()
    rounds, unending = Rounds(config), Rounds(endless(config))
    jobs, step_sizes = [], []
    while rounds.state.finished is None:
        assert unending.jobs == rounds.jobs
        jobs += rounds.jobs.items()
        step_sizes.append(rounds.close(0.0))
        assert unending.close(0.0) == step_sizes[-1] or rounds.state.finished
    assert (rounds.state.version, rounds.state.gradients) == (versions, gradients)
    assert {(row.worker, row.job) for row in rows} == set(jobs[:gradients])
    assert [row.step_size for row in rows if row.steps] == [size for size in step_sizes if size is not None]


def test_a_round_that_comes_too_late_makes_no_update():
    rounds = Rounds(load_config(PLAIN, ["budget.time_s=1.0"]))
    assert rounds.close(0.9) == 0.05 and rounds.close(1.1) is None
    assert rounds.state.finished is not None and (rounds.state.version, rounds.state.gradients) == (1, 4)


def test_the_group_waits_far_longer_than_the_longest_job():
    config = load_config(PLAIN, ["cluster.speeds.profile=straggler", "cluster.speeds.seconds=5"])
    assert _limit_s(config) == 200.0
    assert _limit_s(load_config(PLAIN)) == 60.0 == load_config(PLAIN).cluster.server_timeout_s


def test_a_job_is_kept_back_for_its_time_and_communication(monkeypatch):
    config = load_config(PLAIN, ["cluster.speeds.profile=half_slower", "cluster.speeds.communication_s=0.5"])
    slept = []
    monkeypatch.setattr("asgd.bench.ddp_rank.time.sleep", slept.append)
    monkeypatch.setattr("asgd.bench.ddp_rank.time.monotonic", lambda: 100.0)
    for rank, started_s, expected_s in ((0, 100.0, 0.6), (0, 99.0, 0.5), (3, 99.9, 0.8)):
        pace = Pace(config, rank)
        pace.begin(rank, started_s, 0.0)
        pace.keep_back()
        assert slept.pop() == pytest.approx(expected_s)


def test_the_first_cause_is_told_and_not_who_broke_by_it():
    ran = DdpRun(metrics=[], versions=1, gradients=1, samples=1, wall_s=1.0)
    assert _result([Broken("closed"), Failed("rank 2 died", 1)], False) == Failed("rank 2 died", 1)
    assert _result([Broken("timed out"), Broken("closed")], False) is None  # a cause may yet be heard
    assert _result([Broken("timed out"), Broken("closed")], True) == Failed("timed out", 1)
    assert _result([ran], False) == ran and _result([Trained()], False) is None and _result([], True) is None


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("method.name=asynchronous", "method.name"),
        ("method.local_steps=2", "method.local_steps"),
        ("task.micro_batches=2", "task.micro_batches"),
        ("method.rule=nonsense", "nonsense"),
    ],
)
def test_what_the_baseline_does_not_do_is_refused(override, key):
    with pytest.raises(ConfigError, match=key):
        check(load_config(PLAIN, [override]))


# On real processes.


@pytest.mark.cluster
@pytest.mark.slow
def test_it_ends_on_the_parameters_of_minibatch_with_the_same_samples(config, tmp_path):
    config["cluster"]["speeds"] = {"profile": "half_slower", "seconds": 0.01, "communication_s": 0.01}
    run = run_ddp(load_config(config), tmp_path, stops=StopRequests(), model=tmp_path / "ddp.safetensors")
    ours = noted(tmp_path)
    simulated = simulate(config, run_dir=tmp_path / "run")
    theirs = noted(tmp_path)

    # What was begun of the next round when rank 0 was done is thrown away.
    expected = [(sample_indices(256, 3, job % 3, job, 8).tolist()) for job in range(63)]
    per_process = Counter(pid for pid, _, _ in ours)
    assert len(per_process) == 3 and set(per_process.values()) <= {20, 21}
    for pid in per_process:
        samples = [indices for other, indices, _ in ours if other == pid]
        worker = expected.index(samples[0])
        assert samples == expected[worker::3][: len(samples)]
    assert {(tuple(i), drawn) for _, i, drawn in theirs} <= {(tuple(i), drawn) for _, i, drawn in ours}

    # float32: the mean is summed in another order, in each of 20 steps of 0.1 an error of a few 2^-24 of a gradient (of
    # length below 1). Other samples, or another step size, would show in the second digit.
    ddp, minibatch = load_file(tmp_path / "ddp.safetensors"), simulated.model().state_dict()
    assert ddp.keys() == minibatch.keys()
    for name, tensor in minibatch.items():
        torch.testing.assert_close(ddp[name], tensor, rtol=0.0, atol=5e-7)

    assert (run.versions, run.gradients, run.samples) == (20, 60, 480)
    assert [(row.version, row.samples_seen) for row in run.metrics] == [
        (row.version, row.samples_seen) for row in simulated.metrics
    ]
    for row, other in zip(run.metrics, simulated.metrics, strict=True):
        assert row.test_loss == pytest.approx(other.test_loss, abs=1e-5)
        assert row.results.keys() == other.results.keys()
        assert 0.05 * row.version <= row.time_s <= run.wall_s  # a round takes its slowest rank: 4 x 0.01 s, and 0.01 s


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["task.options.norm=true", "optimizer.momentum=0.9", "optimizer.nesterov=true", "optimizer.weight_decay=0.01",
         "schedule.name=cosine", "schedule.over=versions"],
        ["optimizer.name=adamw", "method.step_size=0.01", "optimizer.clip_norm=0.1"],
    ],
    ids=["nesterov with batch norm", "adamw"],
)  # fmt: skip
def test_one_rank_is_minibatch_with_one_worker(config, tmp_path, overrides):
    overrides = ["cluster.num_workers=1", *overrides]
    model = tmp_path / "ddp.safetensors"
    run_ddp(load_config(config, overrides), tmp_path, stops=StopRequests(), model=model)
    expected = simulate(config, overrides, run_dir=tmp_path / "run").model().state_dict()
    # float32 again, and clip_grad_norm_ adds 1e-6 to the norm. (No batch norm with Adam: it makes a step of full length
    # out of the rounding errors that are the gradient of a bias before a normalisation.)
    for name, tensor in load_file(model).items():
        if tensor.is_floating_point():  # num_batches_tracked stays with its process
            torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.cluster
@pytest.mark.slow
def test_the_statistics_of_batch_norm_are_those_of_rank_0(config, tmp_path):
    overrides, model = ["task.options.norm=true", "budget.versions=1"], tmp_path / "ddp.safetensors"
    run_ddp(load_config(config, overrides), tmp_path, stops=StopRequests(), model=model)
    alone = simulate(config, [*overrides, "cluster.num_workers=1"], run_dir=tmp_path / "run").model().state_dict()
    together = load_file(model)
    for name in ("1.running_mean", "1.running_var"):
        torch.testing.assert_close(together[name], alone[name])
    assert not torch.allclose(together["0.weight"], alone["0.weight"], rtol=0.0, atol=1e-4)  # the mean of three


@pytest.mark.cluster
@pytest.mark.slow
def test_a_budget_of_time_ends_a_run(config, tmp_path):
    config["cluster"]["speeds"] = {"profile": "half_slower", "seconds": 0.05, "communication_s": 0.01}
    config["budget"] = {"time_s": 1.1}
    run = run_ddp(load_config(config, ["evaluation.every_versions=2"]), tmp_path, stops=StopRequests())
    assert run.wall_s == 1.1 and run.versions <= math.floor(1.1 / 0.21)
    assert run.gradients == 3 * run.versions and run.samples == 8 * run.gradients
    assert all(0.21 * row.version <= row.time_s <= 1.1 for row in run.metrics)
    assert_nothing_is_left(tmp_path)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (signal.SIGKILL, r"rank \d of DDP died: killed by SIGKILL"),
        (signal.SIGSTOP, r"rank \d of DDP lost the others, .*: Timed out waiting 3000ms"),
    ],
    ids=["killed", "stopped"],
)
def test_a_rank_that_dies_or_stands_still_ends_the_run(config, tmp_path, number, sentence):
    config["task"]["options"]["third_batch"] = int(number)
    # A death is found out long before the group would give up: this test would be ended before that.
    config["cluster"]["server_timeout_s"] = 3.0 if number == signal.SIGSTOP else 1000.0
    with pytest.raises(RunError, match=sentence) as caught:
        run_ddp(load_config(config, ["budget.versions=100_000"]), tmp_path, stops=StopRequests())
    assert "\n" not in str(caught.value)
    assert_nothing_is_left(tmp_path)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "error", "sentence"),
    [
        ("broken", ConfigError, "the loss is broken"),
        ("without_numbers", RunError, "diverged: the last 10 losses of rank 0 were not finite"),
    ],
)
def test_what_is_wrong_with_a_task_is_told(config, tmp_path, function, error, sentence):
    config["task"]["function"] = f"{tmp_path / 'tiny.py'}:{function}"
    with pytest.raises(error, match=sentence):
        run_ddp(load_config(config), tmp_path, stops=StopRequests())
    assert_nothing_is_left(tmp_path)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ("{log = LOG, number = 9}", RunError, "rank 0 of DDP died: killed by SIGKILL"),
        ("{log = LOG, number = 0}", ConfigError, "the task's accuracy must return a tensor of one number"),
    ],
    ids=["killed", "wrong"],
)
def test_what_ends_rank_0_after_the_training_is_told(config, tmp_path, options, error, sentence):
    config["task"]["function"] = f"{tmp_path / 'tiny.py'}:fatal_to_test"
    overrides = [f"task.options={options.replace('LOG', repr(str(tmp_path / 'log')))}"]
    with pytest.raises(error, match=sentence):
        run_ddp(load_config(config, overrides), tmp_path, stops=StopRequests())
    assert_nothing_is_left(tmp_path)


@pytest.mark.cluster
@pytest.mark.slow
def test_a_request_to_stop_ends_all_processes(config, tmp_path):
    class AfterThreeRounds(StopRequests):
        def take(self):
            log = Path(tmp_path / "log")
            return "interrupted by SIGINT" if log.exists() and len(log.read_text().splitlines()) >= 9 else None

    with pytest.raises(Interrupted, match="interrupted by SIGINT"):
        run_ddp(load_config(config, ["budget.versions=100_000"]), tmp_path, stops=AfterThreeRounds())
    assert_nothing_is_left(tmp_path)


@pytest.mark.cluster
@pytest.mark.slow
def test_the_death_of_the_process_that_forks_is_one_sentence_and_takes_the_ranks_along(config, tmp_path):
    class KillAfterThreeRounds(StopRequests):
        ranks = ()

        def take(self):
            log = tmp_path / "log"
            lines = log.read_text().splitlines() if log.exists() and not self.ranks else []
            if len(lines) > 9:
                pids = {json.loads(line)[0] for line in lines[:9]}
                self.ranks = [os.pidfd_open(pid) for pid in pids]
                parents = {int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pids}
                (parent,) = parents
                os.kill(parent, signal.SIGKILL)

    stops = KillAfterThreeRounds()
    with pytest.raises(RunError, match="the process that starts the ranks of DDP died: killed by SIGKILL"):
        run_ddp(load_config(config, ["budget.versions=100_000"]), tmp_path, stops=stops)
    assert len(stops.ranks) == 3
    for rank in stops.ranks:
        assert select.select([rank], [], [], 30.0)[0], "a rank goes on without the process that started it"
        os.close(rank)
    assert not list((tmp_path / "temporary").iterdir())
