"""Tuning: the same with any number of processes, files gone on with, and nothing left by interrupts and deaths."""

from __future__ import annotations

import json
import os
import signal
import statistics
from pathlib import Path

import pytest
from helpers.tuning import CONFIG, LIMIT, NOISY

from asgd.api import simulate
from asgd.errors import ConfigError, Interrupted, RunError
from asgd.run.signals import StopRequests
from asgd.sim.tune import tune


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"seeds": 0}, "seeds = 0"),
        ({"jobs": 0}, "jobs = 0"),
        ({"score": "best"}, "allowed are final, time and gradients"),
        ({"score": "time"}, "needs a target"),
        ({"target": 1.0}, "goes without a target"),
        ({"step_sizes": []}, "method.step_size: there is no value to try"),
        ({"step_sizes": [-1.0]}, "method.step_size=-1.0"),
        ({"also": {"method.stepsize": [1]}}, "did you mean method.step_size"),
        ({"also": {"method.step_size": [1]}}, "the tuning varies it anyway"),
        ({"also": {"method.options": [{}]}}, "allowed are numbers, text and booleans"),
        ({"also": {"method.options.q": [1.5]}}, "'asynchronous' has no such option"),
        ({"overrides": ["evaluation.evaluate=never"]}, "tuning scores evaluations"),
        ({"overrides": ["cluster.speeds.profile=real"]}, "needs emulated speeds"),
        ({"out": "nowhere/t.json"}, "there is no directory"),
    ],
)
def test_refuses_before_anything_is_started(arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("asgd.sim.tune.simulate_all", None)
    with pytest.raises(ConfigError, match=sentence):
        tune(CONFIG, **arguments)
    assert list(tmp_path.iterdir()) == []


# From here on simulations have processes of their own, which import torch.


@pytest.mark.slow
def test_what_is_above_the_stability_limit_diverges_and_the_best_is_below_it():
    factors = [0.1, 0.4, 0.9, 1.2, 2.0]
    tuning = tune(CONFIG, step_sizes=[factor * LIMIT for factor in factors], seeds=2, metric="suboptimality")
    assert [row.diverged for row in tuning.rows] == [0, 0, 0, 2, 2]
    assert tuning.best.values["method.step_size"] == pytest.approx(0.4 * LIMIT)
    assert not any("grid should be extended" in warning for warning in tuning.warnings)
    assert tuning.best.score < 1e-6 and tuning.best.standard_error == 0.0, "without noise the seeds are alike"


@pytest.mark.slow
def test_the_same_with_one_and_two_processes_and_as_simulate_gives(tmp_path):
    arguments = {"step_sizes": [0.05, 0.1], "also": {"method.name": ["asynchronous", "minibatch"]}, "seeds": 2}
    one, two = (tune(CONFIG, NOISY, metric="suboptimality", jobs=jobs, **arguments) for jobs in (1, 2))
    assert one == two and one.complete and len(one.cells) == 8
    assert one.seeds == [3, 4]
    cell = one.cells[-1]
    overrides = [f"{key}={value}" for key, value in cell.values.items()] + [f"seed={cell.seed}"]
    run = simulate(CONFIG, [*NOISY, *overrides], run_dir=tmp_path / "run")
    assert cell.score == statistics.fmean(row.results["suboptimality"] for row in run.metrics[-2:])
    assert len({cell.score for cell in one.cells}) == 8


FAILING = """
from dataclasses import replace
from asgd.learn.problems import diagonal_quadratic
def fail(*_):
    raise ValueError("no gradient")
def task():
    return replace(diagonal_quadratic(), loss=fail)
"""


@pytest.mark.slow
def test_an_unknown_metric_and_a_task_that_fails_are_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"metric = 'f1': this task reports test_loss, train_loss, suboptimality$"):
        tune(CONFIG, step_sizes=[0.1], metric="f1")
    with pytest.raises(ConfigError, match=r"^task option dimension = 0 is not allowed"):
        tune(CONFIG, ["task.options={dimension = 0}"], step_sizes=[0.1])
    (tmp_path / "failing.py").write_text(FAILING)
    with pytest.raises(ConfigError, match=r"^method.step_size=0.1, seed=3: .* failed on .*: ValueError: no gradient$"):
        tune(CONFIG, [f"task.function={tmp_path / 'failing.py'}:task", "task.options={}"], step_sizes=[0.1], seeds=1)


@pytest.mark.slow
def test_a_file_is_gone_on_with_extended_and_kept_from_another_tuning(tmp_path):
    file = tmp_path / "t.json"
    stops, counts = StopRequests(), []

    def stop_after_one(done, total):
        counts.append((done, total))
        if done == 1:
            stops.ask("interrupted")

    part = tune(CONFIG, NOISY, step_sizes=[0.05, 0.1], seeds=2, jobs=1, out=file, progress=stop_after_one, stops=stops)
    assert not part.complete and counts[:2] == [(0, 4), (1, 4)]
    assert json.loads(file.read_bytes())["complete"] is False
    known = len(part.cells)
    assert 1 <= known < 4
    counts.clear()
    whole = tune(CONFIG, NOISY, step_sizes=[0.05, 0.1], seeds=2, out=file, progress=lambda *c: counts.append(c))
    assert counts == [(done, 4) for done in range(known, 5)]
    assert whole == tune(CONFIG, NOISY, step_sizes=[0.05, 0.1], seeds=2)
    counts.clear()
    extended = tune(CONFIG, NOISY, step_sizes=[0.1, 0.2], seeds=2, out=file, progress=lambda *c: counts.append(c))
    assert counts == [(2, 4), (3, 4), (4, 4)] and extended.rows[0] == whole.rows[1]
    assert len(json.loads(file.read_bytes())["cells"]) == 6, "what isn't of this grid is kept"
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=r"made with budget.versions = 60, and here it is 70; give another file"):
        tune(CONFIG, [*NOISY, "budget.versions=70"], step_sizes=[0.1], out=file)
    with pytest.raises(ConfigError, match=r"made with goal.metric = 'test_loss'"):
        tune(CONFIG, NOISY, step_sizes=[0.1], metric="suboptimality", out=file)
    assert file.read_bytes() == before
    file.write_text("{}")
    with pytest.raises(ConfigError, match="no result of asgd tune, and is left alone"):
        tune(CONFIG, NOISY, step_sizes=[0.1], out=file)


DYING = """
import os, signal
from dataclasses import replace
from asgd.learn.problems import diagonal_quadratic
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def task(seed: int, deadly: int = -1):
    made = diagonal_quadratic(dimension=3)
    return replace(made, loss=die) if seed == deadly else made
"""


@pytest.mark.slow
def test_a_simulation_that_dies_is_one_sentence_and_the_others_are_kept(tmp_path):
    (tmp_path / "dying.py").write_text(DYING)
    overrides = [f"task.function={tmp_path / 'dying.py'}:task", "task.options={deadly = 4}", "budget.versions=20"]
    file = tmp_path / "t.json"
    with pytest.raises(RunError, match=r"^the simulation of method.step_size=0.1, seed=4 died: killed by SIGKILL$"):
        tune(CONFIG, overrides, step_sizes=[0.1], jobs=1, out=file)
    assert [cell["seed"] for cell in json.loads(file.read_bytes())["cells"]] == [3]


def descendants(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [process for child in children for process in descendants(child)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("how", ["interrupt", "exception"])
def test_no_process_is_left(how):
    stops, seen = StopRequests(), []
    others = descendants(os.getpid())  # of tests before this one

    def look(done, total):
        if done == 1:
            seen.extend(pid for pid in descendants(os.getpid()) if pid not in others)
            if how == "exception":
                raise KeyboardInterrupt
            stops.ask("interrupted by SIGINT")

    endless = ["budget.versions=100000000", "evaluation.every_versions=1000"]
    # The first of them diverges at once; the others would go on for hours.
    grid = {"step_sizes": [0.01, 1e30], "seeds": 1, "jobs": 2, "metric": "suboptimality"}
    if how == "exception":
        with pytest.raises(KeyboardInterrupt):
            tune(CONFIG, endless, progress=look, stops=stops, **grid)
    else:
        tuning = tune(CONFIG, endless, progress=look, stops=stops, **grid)
        assert [row.seeds for row in tuning.rows] == [0, 1] and not tuning.complete
    assert len(seen) >= 2, "the process that forks, and a simulation"
    assert [pid for pid in seen if alive(pid)] == []


@pytest.mark.slow
def test_the_death_of_the_process_that_forks_is_one_sentence_and_takes_the_simulations_along():
    seen = []
    others = descendants(os.getpid())  # of tests before this one

    def kill(done, total):
        if done == 1:
            seen.extend(pid for pid in descendants(os.getpid()) if pid not in others)
            os.kill(seen[0], signal.SIGKILL)  # the child; what it forked comes after it

    with pytest.raises(RunError, match="the process that runs the simulations died: killed by SIGKILL"):
        tune(CONFIG, ["budget.versions=100000000"], step_sizes=[0.01, 1e30], seeds=1, jobs=2, progress=kill)
    assert len(seen) >= 2


def test_asked_to_stop_before_anything():
    stops = StopRequests()
    stops.ask("interrupted by SIGINT")
    with pytest.raises(Interrupted, match="interrupted by SIGINT, before the first simulation had ended"):
        tune(CONFIG, step_sizes=[0.1], stops=stops)
