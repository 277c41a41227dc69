"""What would have been: the same run when nothing changes, and the changes that the times allow."""

from __future__ import annotations

import shutil

import msgspec
import pytest

import asgd
from asgd.api import simulate, train
from asgd.config import load_config
from asgd.errors import ConfigError, RunError
from asgd.run.ledger import check_trace
from asgd.run.result import Run
from asgd.sim.whatif import changed_config, whatif
from asgd.sim.worker_times import Span, WorkerTimes

CONFIG = {
    "seed": 5,
    "task": {"function": "quadratic", "options": {"dimension": 20, "sigma2": 0.1}, "batch_size": 4},
    "method": {"step_size": 0.1},
    "cluster": {"num_workers": 4, "speeds": {"profile": "half_slower", "seconds": 0.01}},
    "budget": {"versions": 150},
}
EXPONENTIAL = ["cluster.speeds.profile=exponential"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return simulate(CONFIG, run_dir=tmp_path_factory.mktemp("whatif") / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["method.name=minibatch", "budget.versions=30"],
        ["method.name=m_synchronous", "method.options.m=3", *EXPONENTIAL],
        ["method.name=ringmaster", "method.options={R=4, cancel=true}", *EXPONENTIAL],
        ["method.name=rennala"],
        ["method.name=random_assignment", "method.rule=constant"],
        ["method.name=bounded_staleness", "method.options.s=1"],
        EXPONENTIAL,
        ["method.jobs_per_worker=2"],
    ],
    ids=lambda overrides: overrides[0] if overrides else "asynchronous",
)
def test_without_changes_it_is_the_recorded_run(tmp_path, overrides):
    recorded = simulate(CONFIG, overrides, run_dir=tmp_path / "recorded")
    found = whatif(recorded.path, run_dir=tmp_path / "again")
    again = Run(tmp_path / "again")
    assert again.summary.parameters_sha256 == recorded.summary.parameters_sha256
    assert [(row.worker, row.job, row.delay) for row in again.trace] == [
        (row.worker, row.job, row.delay) for row in recorded.trace
    ]
    assert again.summary.wall_s == pytest.approx(recorded.summary.wall_s, abs=1e-9)
    assert found.simulated == msgspec.structs.replace(found.recorded, wall_s=found.simulated.wall_s,
                                                      gradients_per_s=found.simulated.gradients_per_s,
                                                      to_level_s=found.simulated.to_level_s)  # fmt: skip
    assert found.repeats == 0


@pytest.mark.cluster
def test_without_changes_it_is_the_recorded_run_of_real_processes(tmp_path):
    recorded = train(CONFIG, run_dir=tmp_path / "recorded")
    found = whatif(recorded.path, run_dir=tmp_path / "again")
    again = Run(tmp_path / "again").summary
    assert again.versions == recorded.summary.versions
    assert again.wall_s == pytest.approx(recorded.summary.wall_s, rel=0.05)
    assert again.parameters_sha256 == recorded.summary.parameters_sha256
    assert found.simulated.to_level_s == pytest.approx(found.recorded.to_level_s, rel=0.05)


def test_another_method_takes_the_time_that_its_own_simulation_takes(run, tmp_path):
    """The emulated times are fixed ones: the model of the recorded times is exact, and they begin again and again."""
    overrides = ["method.name=minibatch", "method.step_size=0.4", "budget.versions=100"]
    found = whatif(run.path, overrides)
    direct = simulate(CONFIG, overrides, run_dir=tmp_path / "direct").summary
    assert found.simulated.wall_s == pytest.approx(direct.wall_s, rel=1e-6)
    assert (found.simulated.versions, found.simulated.gradients) == (100, 400)
    assert found.simulated.test_loss == direct.test_loss
    assert found.repeats > 0 and any("began again" in note for note in found.notes)
    assert found.changed == overrides and found.run_dir is None


def test_the_simulated_run_is_kept_where_it_is_asked_for(run, tmp_path):
    found = asgd.whatif(run.path, ["method.rule=constant"], run_dir=tmp_path / "kept")
    kept = Run(tmp_path / "kept")
    assert found.run_dir == str(tmp_path / "kept") and kept.config.method.rule == "constant"
    assert check_trace(kept.trace, kept.summary.outstanding) == []
    with pytest.raises(RunError, match="already holds a run"):
        whatif(run.path, run_dir=tmp_path / "kept")
    with pytest.raises(ConfigError, match="the recorded run"):
        whatif(run.path, run_dir=run.path, overwrite=True)
    assert run.summary.finished


def test_the_kept_run_has_the_log_of_a_simulated_one(tmp_path):
    task = {"function": "shapes", "options": {"num_train": 64, "num_test": 10, "width": 4}, "partition": "by_size"}
    recorded = simulate({**CONFIG, "task": task, "budget": {"versions": 16}}, run_dir=tmp_path / "recorded")
    whatif(recorded.path, run_dir=tmp_path / "kept")
    log = (tmp_path / "kept" / "logs" / "simulator.log").read_text()
    assert "partition by_size" in log
    assert log == (tmp_path / "recorded" / "logs" / "simulator.log").read_text()


def test_levels_are_the_best_that_both_reach_or_the_one_given(run):
    found = whatif(run.path, ["method.step_size=0.02"])
    assert found.metric == "test_loss"
    worst = max(row.test_loss for row in Run(run.path).metrics)
    assert found.level < worst and found.simulated.to_level_s > found.recorded.to_level_s
    assert "instead of" in found.sentence
    never = whatif(run.path, ["method.step_size=0.02"], metric="suboptimality", target=-1.0)
    assert never.simulated.to_level_s is None and "would not have reached suboptimality = -1" in never.sentence
    with pytest.raises(ConfigError, match="--metric nonsense: the recorded run has suboptimality, test_loss"):
        whatif(run.path, metric="nonsense")
    with pytest.raises(ConfigError, match="--target"):
        whatif(run.path, target=float("nan"))


def test_a_step_that_diverges_is_an_answer(run, tmp_path):
    found = whatif(run.path, ["method.step_size=1e9"], run_dir=tmp_path / "diverged")
    assert found.simulated.to_level_s is None or found.recorded.to_level_s is not None
    assert "finite" in found.simulated.stopped_because or found.simulated.test_loss is None


def test_fewer_workers_may_be_asked_for(run):
    found = whatif(run.path, ["cluster.num_workers=2"])
    assert found.simulated.gradients_per_s == pytest.approx(200.0)
    assert any("left out" in note for note in found.notes)
    with pytest.raises(ConfigError, match="no job of worker 4"):
        whatif(run.path, ["cluster.num_workers=5"])


def test_options_of_another_method_go_with_it(run):
    recorded = load_config(CONFIG, ["method.name=m_synchronous", "method.options.m=3", "method.rule=drop",
                                    "method.rule_options.k=3"])  # fmt: skip
    config = changed_config(recorded, ["method.name=ringmaster", "method.options.R=5"])
    assert config.method.options == {"R": 5} and config.method.rule_options == {"k": 3}
    assert changed_config(recorded, ["method.rule=scale"]).method.rule_options == {}
    assert changed_config(recorded, ["method.name=m_synchronous"]).method.options == {"m": 3}


@pytest.mark.parametrize(
    "override", ["task.batch_size=8", "task.options.dimension=3", "method.local_steps=2", "cluster.speeds.factor=2.0",
                 "cluster.threads_per_worker=2"]
)  # fmt: skip
def test_what_the_times_depend_on_may_not_change(override):
    with pytest.raises(ConfigError, match=f"{override.partition('=')[0]}: the recorded times"):
        changed_config(load_config(CONFIG), [override])


def test_a_run_that_has_not_ended_is_refused(run, tmp_path):
    killed = tmp_path / "killed"
    shutil.copytree(run.path, killed)
    (killed / "summary.json").unlink()
    with pytest.raises(RunError, match=r"has no summary\.json"):
        whatif(killed)


def test_times_begin_again_when_they_are_used_up():
    times = WorkerTimes({0: [Span(0.0, 1.0), Span(1.0, 3.0), Span(3.0, 3.5, cancelled=True)]}, 1)
    ends = []
    now_s = 10.0
    for job in range(4):
        ends.append(times.end_of_job(0, job, now_s) - now_s)
        now_s += 100.0
    assert ends == [1.0, 2.0, 1.0, 1.0]  # the third was in hand at the end after 0.5: the next that took longer
    assert times.repeats == 1
