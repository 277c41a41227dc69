"""A whole benchmark with stand-ins for simulations and runs: the order, what is kept, how it goes on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from helpers.benchmark import Runner, Simulator, plan_of, record_of

from asgd.bench.minibatch.machine import this_machine
from asgd.bench.minibatch.results import RESULTS, Record, open_record
from asgd.bench.minibatch.study import Study
from asgd.errors import ConfigError, Interrupted
from asgd.run.signals import StopRequests
from asgd.sim.tuning import STEP_SIZE

MACHINE = this_machine("asgd bench minibatch tiny.toml")


def study_of(plan, folder, runner, simulator, hear=lambda step: None):
    record = open_record(folder, plan, MACHINE)
    return Study(
        plan, record, folder, Path(), jobs=1, stops=StopRequests(), hear=hear, runner=runner, simulator=simulator
    )


def test_measured_runs_alternate_and_each_contender_has_each_seed(tmp_path):
    plan, runner = plan_of(methods=["asynchronous:scale", "ringmaster", "minibatch"]), Runner()
    study_of(plan, tmp_path, runner, Simulator()).run()
    measured = [(job.seed, job.contender.key) for job in runner.jobs if job.purpose == "measure"]
    a, b, c = "asynchronous:scale", "ringmaster:scale", "minibatch"
    turns = [(100, a), (100, b), (100, c), (101, b), (101, c), (101, a), (102, c), (102, a), (102, b)]
    assert measured == turns
    assert all(job.budget_s == 8.0 for job in runner.jobs if job.purpose == "measure")
    assert {job.seed for job in runner.jobs if job.purpose == "confirm"} == {0}


def test_ddp_takes_the_step_size_of_minibatch_and_is_not_tuned(tmp_path):
    plan, runner, simulator = plan_of(ddp=True), Runner(best=1.0), Simulator()
    study_of(plan, tmp_path, runner, simulator).run()
    jobs = {(job.contender.key, job.purpose): job.values[STEP_SIZE] for job in runner.jobs}
    assert jobs["ddp", "measure"] == jobs["minibatch", "measure"] == 1.0
    assert ("ddp", "confirm") not in jobs
    assert len(simulator.asked) == 2 * 4 * 2


@pytest.mark.parametrize("most", [0, 3, 11])
def test_an_interrupted_tuning_goes_on_where_it_was(tmp_path, most):
    plan, whole, first, second = plan_of(), Simulator(), Simulator(most=most), Simulator()
    study_of(plan, tmp_path / "whole", Runner(), whole).run()
    with pytest.raises(Interrupted):
        study_of(plan, tmp_path / "parts", Runner(), first).run()
    study_of(plan, tmp_path / "parts", Runner(), second).run()
    assert first.asked + second.asked == whole.asked


@pytest.mark.parametrize("most", [0, 2, 8, 11])
def test_no_real_run_is_done_twice(tmp_path, most):
    plan, whole, first, second = plan_of(), Runner(), Runner(most=most), Runner()
    study_of(plan, tmp_path / "whole", whole, Simulator()).run()
    with pytest.raises(KeyboardInterrupt):
        study_of(plan, tmp_path / "parts", first, Simulator()).run()
    again = Simulator()
    study_of(plan, tmp_path / "parts", second, again).run()
    assert first.jobs + second.jobs == whole.jobs and again.asked == []


def test_a_finished_one_is_complete_and_read_back(tmp_path):
    plan = plan_of()
    study_of(plan, tmp_path, Runner(), Simulator()).run()
    record = msgspec.json.decode((tmp_path / RESULTS).read_bytes(), type=Record)
    assert record.complete and len(record.runs) == 2 * 3 + 2 * 3
    assert open_record(tmp_path, plan, MACHINE).runs == record.runs


def test_another_plan_is_refused_and_so_is_another_file(tmp_path):
    study_of(plan_of(), tmp_path, Runner(), Simulator()).run()
    with pytest.raises(ConfigError, match=r"made with cluster.num_workers = 4, and here it is 6"):
        open_record(tmp_path, plan_of("cluster.num_workers=6"), MACHINE)
    with pytest.raises(ConfigError, match=r"benchmark.target = 0.5, and here it is 0.6"):
        open_record(tmp_path, plan_of(target=0.6), MACHINE)
    (tmp_path / RESULTS).write_text("{}")
    with pytest.raises(ConfigError, match="no result of asgd bench minibatch"):
        open_record(tmp_path, plan_of(), MACHINE)


def test_a_result_of_before_a_key_came_is_gone_on_with(tmp_path):
    study_of(plan_of(), tmp_path, Runner(), Simulator()).run()
    file = tmp_path / RESULTS
    stored = msgspec.json.decode(file.read_bytes())
    del stored["plan"]["config"]["checkpoints"]["keep"], stored["plan"]["benchmark"]["confirm"]
    file.write_bytes(msgspec.json.encode(stored))
    assert open_record(tmp_path, plan_of(), MACHINE).complete
    with pytest.raises(ConfigError, match=r"benchmark.confirm = True, and here it is False"):
        open_record(tmp_path, plan_of(confirm=False), MACHINE)


def test_real_speeds_are_tuned_for_real_on_the_whole_grid(tmp_path):
    plan, runner, simulator = plan_of("cluster.speeds.profile=real"), Runner(), Simulator()
    study_of(plan, tmp_path, runner, simulator).run()
    tuned = {(j.contender.key, j.values[STEP_SIZE], j.seed) for j in runner.jobs if j.purpose == "tune"}
    assert simulator.asked == [] and len(tuned) == 2 * 4 * 2
    assert not [job for job in runner.jobs if job.purpose == "confirm"]
    assert {job.values[STEP_SIZE] for job in runner.jobs if job.purpose == "measure"} == {0.5}


def test_the_steps_count_up_to_what_was_said(tmp_path):
    steps = []
    study_of(plan_of(), tmp_path, Runner(), Simulator(), steps.append).run()
    assert steps[-1].done == steps[-1].total == steps[0].total == 16 + 6 + 6
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[0].left_s > 12 * 8 and steps[-1].left_s == 0.0
    assert sum(step.line is not None for step in steps) == 12


def test_without_a_record_nothing_is_there():
    assert record_of(plan_of()).measured("half_slower", "minibatch") == []
