"""Which samples the workers of a run have, in its jobs too, and the warning where method and data don't fit."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import get_args

import pytest
import torch

from asgd.config import load_config
from asgd.config.schema import PartitionName
from asgd.errors import ConfigError
from asgd.learn.gradient import build_model
from asgd.learn.partition import PARTITIONS, labels_of, partition
from asgd.learn.task import load_task
from asgd.net.messages import Job, Stop
from asgd.run.client import Got
from asgd.run.compute import TaskCompute
from asgd.run.roles import prepare
from asgd.run.shards import make_shards, shard_lines
from asgd.run.worker import Worker


def configured(name="iid", method="asynchronous", rule="scale", workers=4, task=None, **options):
    shapes = {"function": "shapes", "options": {"num_train": 200, "num_test": 10}}
    source = {
        "seed": 5,
        "task": {**(task or shapes), "batch_size": 8, "partition": name, "partition_options": options},
        "method": {"name": method, "rule": rule},
        "cluster": {"num_workers": workers},
        "budget": {"versions": 1},
    }
    return load_config(source)


def test_the_configuration_knows_every_partition():
    assert get_args(PartitionName) == PARTITIONS


def test_iid_has_no_shards(tmp_path):
    prepared = prepare(configured(), tmp_path)
    assert prepared.shards is None and shard_lines(prepared.config, prepared.task, None) == []


def test_prepared_shards_follow_the_configuration(tmp_path):
    config = configured("dirichlet", alpha=0.1)
    prepared = prepare(config, tmp_path)
    expected = partition(prepared.task.train, 4, "dirichlet", {"alpha": 0.1}, seed=5)
    assert all(torch.equal(*pair) for pair in zip(prepared.shards, expected, strict=True))
    told = shard_lines(config, prepared.task, prepared.shards)
    assert told[0] == "partition dirichlet; every worker has the weight 1/4" and len(told) == 2 + 4
    assert told[1].split() == ["worker", "samples"] + [word for n in range(10) for word in ("label", str(n))]
    assert prepare(configured("by_size"), tmp_path).shards[3].numel() == 80


def test_a_partition_that_cannot_be_is_one_sentence(tmp_path):
    regression = {"function": "least_squares", "options": {"num_rows": 20, "dimension": 2}}
    with pytest.raises(ConfigError, match="the targets are float32"):
        prepare(configured("by_label", task=regression), tmp_path)
    with pytest.raises(ConfigError, match=r"task\.partition_options\.alpha = -1"):
        prepare(configured("dirichlet", alpha=-1), tmp_path)
    told = prepare(configured("by_size", task=regression), tmp_path)
    assert shard_lines(told.config, told.task, told.shards)[1:] == [
        "worker  samples",
        "     0        2",
        "     1        4",
        "     2        6",
        "     3        8",
    ]


class Recorder:
    """Data that remembers which samples were taken for training."""

    def __init__(self, data):
        self.data, self.taken = data, []

    def __len__(self):
        return len(self.data)

    def batch(self, indices_B, generator):
        if generator is not None:
            self.taken.append(indices_B)
        return self.data.batch(indices_B, generator)


@pytest.fixture
def recorded(tmp_path):
    config = configured("by_label", labels_per_worker=3)
    task = load_task(config.task.function, config.task.options, tmp_path, config.seed, False)
    return config, dataclasses.replace(task, train=Recorder(task.train)), make_shards(config, task)


def test_a_simulated_job_takes_its_workers_samples(recorded):
    """Worker 5 of 4 has the shard of worker 1."""
    config, task, shards = recorded
    compute = TaskCompute(config, task)
    for job, worker in enumerate((0, 1, 5, 3)):
        compute.given(job, 0)
        compute.compute(worker, job)
        assert torch.isin(task.train.taken[-1], shards[worker % 4]).all()
    assert len(labels_of(task.train.data)[torch.cat(task.train.taken[1:3])].unique()) <= 3


def test_a_real_job_takes_its_workers_samples(recorded):
    """A worker on a connection that gives it two jobs, comes back with another number, and gives one more."""
    config, task, shards = recorded
    said = [Job(0, 0, 0.0, -1), Job(7, 0, 0.0, -1), Job(9, 0, 0.0, -1), Stop("done")]

    def wait(until_s=None):
        if until_s is not None:
            return None
        if len(said) == 2:
            connection.on_return(SimpleNamespace(worker=6, time_s=0.0))
        return Got(said.pop(0), SimpleNamespace(copy_payload_into=lambda view: None), 0.0)

    connection = SimpleNamespace(
        wait=wait,
        before_work=lambda job: None,
        answer=lambda message, payload: None,
        server_s=lambda local_s: local_s,
    )
    flat, welcome = build_model(task, config.seed), SimpleNamespace(worker=1, time_s=0.0)
    assert Worker(config, task, flat, connection, welcome, shards).run() == "done"
    for taken, worker in zip(task.train.taken, (1, 1, 2), strict=True):
        assert torch.isin(taken, shards[worker]).all()
