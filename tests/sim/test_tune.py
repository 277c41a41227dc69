"""Tuning in virtual time: known answers, the statistics by hand, the same with any number of processes, reuse of files,
and nothing left behind by interrupts and deaths.
"""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
from pathlib import Path

import pytest

from asgd.api import simulate
from asgd.config import load_config
from asgd.errors import ConfigError, Interrupted, RunError
from asgd.learn.task import load_task
from asgd.run.signals import StopRequests
from asgd.sim.measure import measure
from asgd.sim.tune import octaves, tune
from asgd.sim.tuning import Cell, Goal, make_tuning

WORKERS, CURVATURE = 4, 2.0
# Constant delay n - 1 on a quadratic: stable iff eta lambda < 2 sin(pi / (2 (2 (n - 1) + 1))).
LIMIT = 2.0 * math.sin(math.pi / (2 * (2 * (WORKERS - 1) + 1))) / CURVATURE
CONFIG = {
    "seed": 3,
    "task": {"function": "quadratic", "batch_size": 1,
             "options": {"dimension": 3, "sigma2": 0.0, "min_eigenvalue": CURVATURE, "max_eigenvalue": CURVATURE}},
    "method": {"step_size": 0.1, "rule": "constant"},
    "cluster": {"num_workers": WORKERS, "speeds": {"profile": "equal", "seconds": 1.0}},
    "budget": {"versions": 400},
}  # fmt: skip
NOISY = ["task.options={dimension = 3, sigma2 = 0.5}", "budget.versions=60"]


def measured(goal, *overrides):
    """One simulation in this process."""
    config = load_config(CONFIG, overrides)
    task = load_task(config.task.function, config.task.options, Path("data"), config.seed, False)
    return measure(config, task, goal)


def of_step_size(goal, step_size, *overrides):
    return measured(goal, f"method.step_size={step_size}", *overrides)


def test_octaves_are_powers_of_two_within_the_range_ends_included():
    assert octaves(0.125, 2.0, 1) == [0.125, 0.25, 0.5, 1.0, 2.0]
    assert octaves(0.01, 2, 3)[-1] == 2.0
    assert [round(s, 3) for s in octaves(0.19, 3.2, 3)] == [
        0.198, 0.25, 0.315, 0.397, 0.5, 0.63, 0.794, 1.0, 1.26, 1.587, 2.0, 2.52, 3.175,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [((0.0, 1.0, 3), "--from 0"), ((2.0, 1.0, 3), "--to 1"), ((1.1, 1.2, 1), r"no 2\^\(k/1\)"), ((1, 2, 0), "octave")],
)
def test_octaves_refuse(arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        octaves(*arguments)


def test_step_sizes_below_the_stability_limit_converge_and_those_above_diverge():
    goal = Goal(metric="suboptimality")
    scores = {factor: of_step_size(goal, factor * LIMIT) for factor in (0.2, 0.5, 0.9, 1.1, 1.6, 1e30)}
    assert [factor for factor, cell in scores.items() if cell.diverged] == [1.1, 1.6, 1e30]
    assert all(cell.score is None for cell in scores.values() if cell.diverged)
    assert scores[0.5].score < scores[0.9].score < 0.1
    assert scores[1.6].versions < 400, "it is ended early"


def test_the_final_score_is_the_mean_of_the_last_tenth(tmp_path):
    goal, overrides = Goal(metric="suboptimality"), [*NOISY, "evaluation.every_versions=2"]
    run = simulate(CONFIG, overrides, run_dir=tmp_path / "run")
    last = [row.results["suboptimality"] for row in run.metrics if row.version >= 54]
    assert len(last) == 4
    cell = measured(goal, *overrides)
    assert cell.score == pytest.approx(statistics.fmean(last), rel=1e-12)
    assert (cell.versions, cell.gradients, cell.discarded, cell.time_s) == (60, 60, 0, run.summary.wall_s)


def test_a_model_without_updates_in_the_last_tenth_counts_as_it_was_left():
    """Mini-batch of workers of 1 s and 4 s: the only updates are after 4 and 8 s of 11."""
    overrides = ["cluster.speeds.profile=half_slower", "budget.versions=0", "budget.time_s=11"]
    cell = measured(Goal(metric="suboptimality"), "method.name=minibatch", *overrides)
    # x -> (1 - 0.1 * 2) x, twice, from x = 1 in 3 dimensions; f = 2 x^2 / 2 in each
    assert cell.versions == 2 and cell.score == pytest.approx(3 * 0.8**4, rel=1e-5)


def test_time_and_gradients_to_a_target(tmp_path):
    overrides = ["evaluation.every_versions=1"]
    run = simulate(CONFIG, overrides, run_dir=tmp_path / "run")
    first = next(row for row in run.metrics if row.results["suboptimality"] <= 0.01)
    by_time = measured(Goal(metric="suboptimality", score="time", target=0.01), *overrides)
    by_gradients = measured(Goal(metric="suboptimality", score="gradients", target=0.01), *overrides)
    assert (by_time.score, by_gradients.score) == (first.time_s, first.version)
    assert by_time.versions == first.version < 400, "it ends there"
    missed = measured(Goal(metric="suboptimality", score="time", target=-1.0), *overrides)
    assert missed.score is None and not missed.diverged and missed.versions == 400


def cell(step_size, seed, score, diverged=False, gradients=100, discarded=0):
    return Cell(
        values={"method.step_size": step_size}, seed=seed, score=score, diverged=diverged, versions=90,
        gradients=gradients, discarded=discarded, time_s=1.0,
    )  # fmt: skip


def put_together(cells, goal=None, step_sizes=(0.1, 0.2, 0.4), seeds=(0, 1)):
    return make_tuning({}, goal or Goal(), {"method.step_size": list(step_sizes)}, list(seeds), cells)


def test_means_errors_and_the_best_by_hand():
    cells = [
        cell(0.4, 1, None, diverged=True), cell(0.4, 0, 0.1), cell(0.2, 1, 2.0, discarded=50), cell(0.2, 0, 1.0),
        cell(0.1, 0, 3.0), cell(0.1, 1, 3.0),
    ]  # fmt: skip
    tuning = put_together(cells)
    assert tuning.complete and tuning.overrides == ["method.step_size=0.2"] and tuning.warnings == []
    third, second = tuning.rows[0], tuning.rows[1]
    assert (second.score, second.standard_error, second.best) == (1.5, pytest.approx(0.5), True)
    assert (second.discarded_share, second.versions) == (0.25, 90)
    assert (third.score, third.standard_error, third.best) == (3.0, 0.0, False)
    worst = tuning.rows[2]
    assert (worst.score, worst.diverged, worst.best) == (None, 1, False), "one run that diverges makes it the worst"
    assert put_together(reversed(cells)) == tuning, "the order in which simulations end doesn't matter"


def test_accuracy_is_better_when_it_is_higher_and_its_time_when_it_is_lower():
    cells = [cell(s, seed, s) for s in (0.1, 0.2, 0.4) for seed in (0, 1)]
    goal = Goal(metric="test_accuracy")
    assert put_together(cells, goal).best.values == {"method.step_size": 0.4} and "higher is better" in str(goal)
    goal = Goal(metric="test_accuracy", score="time", target=0.5)
    assert put_together(cells, goal).best.values == {"method.step_size": 0.1} and "lower is better" in str(goal)
    assert goal.reached(0.6) and not goal.reached(0.4)


def test_a_best_at_the_edge_a_grid_without_a_best_and_points_that_are_not_complete():
    cells = [cell(s, seed, s) for s in (0.1, 0.2, 0.4) for seed in (0, 1)]
    assert put_together(cells).warnings == [
        "the best method.step_size = 0.1 is the smallest that was tried: the grid should be extended"
    ]
    nothing = put_together([cell(s, seed, None) for s in (0.1, 0.2, 0.4) for seed in (0, 1)])
    assert nothing.best is None and nothing.overrides == [] and "no best" in nothing.warnings[0]
    assert nothing.rows[0].missed == 2
    part = put_together(cells[1:])
    assert not part.complete and part.rows[0].seeds == 1 and part.best.values == {"method.step_size": 0.2}


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
        tune(CONFIG, [f"task.function={tmp_path / 'failing.py'}:task", "task.options={}"], step_sizes=[0.1])


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

    def look(done, total):
        if done == 1:
            seen.extend(descendants(os.getpid()))
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

    def kill(done, total):
        if done == 1:
            seen.extend(descendants(os.getpid()))
            (forks,) = (int(c) for c in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
            os.kill(forks, signal.SIGKILL)

    with pytest.raises(RunError, match="the process that runs the simulations died: killed by SIGKILL"):
        tune(CONFIG, ["budget.versions=100000000"], step_sizes=[0.01, 1e30], seeds=1, jobs=2, progress=kill)
    assert len(seen) >= 2


def test_asked_to_stop_before_anything():
    stops = StopRequests()
    stops.ask("interrupted by SIGINT")
    with pytest.raises(Interrupted, match="interrupted by SIGINT, before the first simulation had ended"):
        tune(CONFIG, step_sizes=[0.1], stops=stops)
