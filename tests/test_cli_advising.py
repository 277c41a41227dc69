"""`asgd advise` and `asgd whatif` on the command line: output, JSON, exit status."""

from __future__ import annotations

import json
from functools import partial

import pytest
from helpers.command import run_command

from asgd.api import simulate

CONFIG = {
    "task": {"function": "quadratic", "options": {"dimension": 20, "sigma2": 0.1}, "batch_size": 4},
    "method": {"step_size": 0.1},
    "cluster": {"num_workers": 4, "speeds": {"profile": "half_slower", "seconds": 0.01}},
    "budget": {"versions": 60},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return simulate(CONFIG, run_dir=tmp_path_factory.mktemp("cli") / "run").path


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command in this process: its exit status, and what it wrote to both streams."""

    return partial(run_command, monkeypatch, capsys)


def test_advice_for_given_times(command, tmp_path):
    (tmp_path / "times").write_text("[0.15, 0.15, 0.6, 0.6]")
    status, out, _ = command("advise", "--times", tmp_path / "times", "--noise", 8, "--minibatch-s", 100)
    assert status == 0
    assert "asynchronous 16.67, mini-batch 6.667 (2.5 times)" in out
    assert "Use asynchronous" in out and "use it with: --set 'method.name=\"asynchronous\"'" in out
    assert any(line.split()[:3] == ["mini-batch", "1.000", "100"] for line in out.splitlines())


def test_advice_for_a_run_as_json(command, run):
    status, out, err = command("advise", run, "--json")
    advice = json.loads(out)
    assert status == 0 and err == ""
    assert advice["noise"]["source"] == "estimated" and len(advice["workers"]) == 4
    assert {"name", "label", "overrides", "relative_time", "seconds"} <= advice["methods"][0].keys()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "advice needs a run or times"),
        (["--times", "none"], "--times none: there is no such file"),
        (["--times", "times", "--noise", "-1"], "--noise -1.0"),
        (["--times", "zero"], "--times zero, line 1"),
    ],
)
def test_wrong_usage_is_one_sentence(command, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "times").write_text("1\n")
    (tmp_path / "zero").write_text("0\n")
    status, out, err = command("advise", *arguments, "--json")
    assert (status, out) == (2, "") and err.startswith("asgd: ") and sentence in err and err.count("\n") == 1


def test_no_run_is_a_failure(command, tmp_path):
    for name in ("advise", "whatif"):
        status, out, err = command(name, tmp_path / "none")
        assert (status, out) == (1, "") and "is not the directory of a run" in err


def test_what_if_shows_both(command, run, tmp_path):
    status, out, _ = command("whatif", run, "--set", "method.name=minibatch", "--set", "method.step_size=0.2",
                             "--run-dir", tmp_path / "kept")  # fmt: skip
    assert status == 0
    assert out.splitlines()[0].split() == ["recorded", "would", "have", "been"]
    assert any(line.split() == ["method", "asynchronous", "minibatch"] for line in out.splitlines())
    assert "On your cluster, that would have taken" in out and (tmp_path / "kept" / "summary.json").is_file()


def test_what_if_as_json(command, run):
    status, out, err = command("whatif", run, "--json")
    found = json.loads(out)
    assert status == 0 and err == ""
    assert found["recorded"]["versions"] == found["simulated"]["versions"] == 60 and found["repeats"] == 0


def test_what_if_refuses_what_the_times_depend_on(command, run):
    status, out, err = command("whatif", run, "--set", "task.batch_size=8")
    assert (status, out) == (2, "") and "task.batch_size: the recorded times are of jobs with 4" in err
