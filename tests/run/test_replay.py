"""Replay: every method to the bit, in virtual time and on real processes; and what differs is found and named."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import batch_norm_task
from safetensors.torch import load_file
from typer.testing import CliRunner

import asgd
from asgd.api import replay, resume, simulate, train
from asgd.cli import app
from asgd.core.methods import METHODS
from asgd.core.state import CANCELLED
from asgd.errors import ConfigError, RunError
from asgd.run.compute import TaskCompute

CONFIG = {
    "seed": 5,
    "task": {"function": "quadratic", "options": {"dimension": 20, "sigma2": 0.1}, "batch_size": 4},
    "method": {"step_size": 0.05},
    "optimizer": {"momentum": 0.3, "clip_norm": 2.0},
    "schedule": {"name": "cosine", "over": "versions", "total": 200, "warmup": 10},
    "cluster": {"num_workers": 4, "speeds": {"profile": "half_slower", "seconds": 0.01}},
    "budget": {"gradients": 150},
    "checkpoints": {"every_versions": 40},
    "evaluation": {"evaluate": "never"},
}


def for_method(method, **changes):
    info = METHODS[method]
    options = {"picky": {"threshold": 0.3}, "ringmaster": {"R": 2, "cancel": True}, "rennala": {"batch": 3}}
    config = CONFIG | {"method": CONFIG["method"] | {"name": method, "options": options.get(method, {})}} | changes
    if info.answers == "parameters":
        config["method"] |= {"local_steps": 3}
        config["optimizer"] = {}
    return config


@pytest.mark.parametrize("method", METHODS)
def test_every_method_in_virtual_time(tmp_path, method):
    run = simulate(for_method(method), run_dir=tmp_path / "run")
    result = replay(run.path, check=True)
    assert result.is_exact and result.arrivals == len(run.trace) and result.version == run.summary.versions > 0
    assert result.parameters_sha256 == run.summary.parameters_sha256 == result.recorded_sha256
    assert result.environment == [] and result.notes == []


def test_different_data_two_jobs_a_worker_and_local_steps(tmp_path):
    task = {"function": "shapes", "options": {"num_train": 200, "num_test": 20, "width": 4}, "batch_size": 4}
    task |= {"partition": "dirichlet", "partition_options": {"alpha": 0.5}}
    method = {"step_size": 0.05, "jobs_per_worker": 2, "local_steps": 2, "local_step_size": 0.05}
    run = simulate(CONFIG | {"task": task, "method": method, "budget": {"gradients": 40}}, run_dir=tmp_path / "run")
    result = replay(run.path, check=True)
    assert result.recorded_sha256 == result.parameters_sha256 and result.jobs == 40


@pytest.mark.parametrize("method", ["asynchronous", "minibatch", "rennala", "ringleader", "dc_asgd", "fedbuff"])
def test_batch_norm_and_dropout(tmp_path, method):
    task = {"function": f"{batch_norm_task.__file__}:task", "batch_size": 8, "micro_batches": 2}
    optimizer = {"name": "adam"} if "adam" in METHODS[method].optimizers else {}
    run = simulate(for_method(method, task=task, optimizer=optimizer), run_dir=tmp_path / "run")
    result = replay(run.path, check=True)
    assert result.recorded_sha256 == result.parameters_sha256
    replayed, recorded = result.model().state_dict(), run.model().state_dict()
    assert all(torch.equal(replayed[name], recorded[name]) for name in recorded), "the buffers too"


@pytest.mark.cluster
@pytest.mark.parametrize("method", ["asynchronous", "m_synchronous", "ringmaster", "ringleader", "gap_aware"])
def test_on_real_processes(tmp_path, method):
    run = train(for_method(method), run_dir=tmp_path / "run")
    result = asgd.replay(run.path, check=True)
    assert result.recorded_sha256 == result.parameters_sha256 and result.arrivals == len(run.trace)


@pytest.mark.cluster
def test_a_real_run_that_was_resumed_with_a_larger_budget_and_other_workers(tmp_path):
    train(CONFIG, run_dir=tmp_path / "run")
    for mode, gradients in (("checkpoint", 200), ("exact", 250), ("exact", 260)):
        changes = [f"budget.gradients={gradients}", f"recovery.mode={mode}", "cluster.num_workers=3"]
        run = resume(tmp_path / "run", overrides=changes)
    result = replay(run.path, check=True)
    assert result.recorded_sha256 == result.parameters_sha256 and result.restarts == 3
    assert result.arrivals == len(run.trace) > 260


def test_the_model_at_any_version(tmp_path):
    run = simulate(CONFIG | {"checkpoints": {"every_versions": 40, "keep": 9}}, run_dir=tmp_path / "run")
    last = run.summary.versions
    whole = replay(run.path, until=last)
    assert whole.parameters_sha256 == run.summary.parameters_sha256
    middle = replay(run.path, until=40)
    assert middle.version == 40 and middle.is_exact and middle.recorded_sha256 is None
    again = simulate(CONFIG | {"budget": {"versions": 40}}, run_dir=tmp_path / "short")
    assert again.summary.parameters_sha256 == middle.parameters_sha256
    start = replay(run.path, until=0)
    assert (start.version, start.arrivals) == (0, 0) and start.parameters_sha256 != middle.parameters_sha256
    with pytest.raises(ConfigError, match=f"--until {last + 1}: the run ends with version {last}"):
        replay(run.path, until=last + 1)


def test_what_differs_up_to_a_version_counts_with_the_arrival_that_makes_it(tmp_path, monkeypatch):
    path = simulate(CONFIG, run_dir=tmp_path / "run").path
    compute = TaskCompute.compute

    def wrong(self, worker, job):
        result = compute(self, worker, job)
        return result._replace(loss=result.loss + 1.0)

    monkeypatch.setattr(TaskCompute, "compute", wrong)
    for until in (0, 1, 2):
        result = replay(path, until=until)
        assert [(each.arrival, each.key) for each in result.differences] == [(row, "loss") for row in range(until)]
        assert result.is_exact == (until == 0) and result.version == result.jobs == until


def test_up_to_a_version_with_the_jobs_that_it_cancels(tmp_path):
    run = simulate(for_method("ringmaster"), run_dir=tmp_path / "run")
    version = next(row.version for row in run.trace if row.reason == CANCELLED)
    cancelled = [row.arrival for row in run.trace if row.reason == CANCELLED and row.version == version]
    result = replay(run.path, until=version)
    assert result.is_exact and result.version == version and result.arrivals == cancelled[-1] + 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("step_size", 0.1), ("delay", 9), ("loss", 0.5), ("worker", 3), ("action", "discard"), ("time_s", 1e-9)],
)
def test_a_changed_line_of_the_trace_is_found(tmp_path, key, value):
    path = simulate(CONFIG, run_dir=tmp_path / "run").path
    lines = (path / "trace.jsonl").read_text().splitlines()
    row = json.loads(lines[33])
    was, row[key] = row[key], value
    lines[33] = json.dumps(row)
    (path / "trace.jsonl").write_text("".join(line + "\n" for line in lines))
    result = replay(path)
    assert result.differences == [(33, key, value, was)]
    done = CliRunner().invoke(app, ["replay", str(path), "--check"])
    assert done.exit_code == 1
    assert f"arrival 33: {key} is {value!r} in the record and {was!r} again" in done.stdout.replace("\n", " ")


def test_another_seed_or_task_is_found(tmp_path):
    path = simulate(CONFIG, run_dir=tmp_path / "run").path
    text = (path / "config.toml").read_text()
    (path / "config.toml").write_text(text.replace("seed = 5", "seed = 6"))
    with pytest.raises(RunError, match="belongs to another configuration"):
        replay(path)
    (path / "config.toml").write_text(text.replace("momentum = 0.3", "momentum = 0.301"))
    result = replay(path)
    assert not result.is_exact and result.differences[0].key in ("loss", "parameters_sha256")
    assert replay(path, check=True).num_differences == 1, "it stops at the first"
    file = tmp_path / "model.safetensors"
    done = CliRunner().invoke(app, ["replay", str(path), "--export", str(file)])
    assert isinstance(done.exception, RunError) and not file.exists(), "that isn't the run's model"
    assert "may have been changed since" in done.stdout


def test_lines_that_are_missing_or_too_many_are_found(tmp_path):
    path = simulate(CONFIG, run_dir=tmp_path / "run").path
    whole = (path / "trace.jsonl").read_text()
    (path / "trace.jsonl").write_text("".join(whole.splitlines(keepends=True)[:-1]))
    assert [difference.key for difference in replay(path).differences] == ["arrivals"]
    (path / "trace.jsonl").write_text(whole + whole.splitlines(keepends=True)[-1])
    assert [difference.key for difference in replay(path).differences] == ["arrivals"]


def test_another_environment_is_named(tmp_path):
    path = simulate(CONFIG, run_dir=tmp_path / "run").path
    summary = json.loads((path / "summary.json").read_text())
    now = summary["environment"]["torch"]
    summary["environment"] |= {"torch": "1.0", "python": "2.7"}
    (path / "summary.json").write_text(json.dumps(summary))
    assert replay(path).environment == [f"torch: 1.0 then, {now} now"], "no number depends on Python's version"


def test_the_command(tmp_path):
    path = simulate(CONFIG, run_dir=tmp_path / "run").path
    file = tmp_path / "model.safetensors"
    done = CliRunner().invoke(app, ["replay", str(path), "--until", "30", "--export", str(file), "--json"])
    told = json.loads(done.stdout)
    assert done.exit_code == 0 and told["exact"] and told["version"] == 30 and told["file"] == str(file)
    assert sum(tensor.numel() for tensor in load_file(file).values()) == 20
    done = CliRunner().invoke(app, ["replay", str(path), "--check"])
    assert done.exit_code == 0 and "the same to the bit" in done.stdout and "that of the record" in done.stdout


def test_a_run_without_a_journal_says_so(tmp_path):
    path = simulate(CONFIG, run_dir=tmp_path / "run").path
    (path / "journal.bin").unlink()
    with pytest.raises(RunError, match=r"has no journal\.bin"):
        replay(path)
