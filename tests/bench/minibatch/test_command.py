"""`asgd bench minibatch` to its end on real processes; interrupted, and gone on with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from helpers.command import run_command

from asgd.run.ledger import check_trace
from asgd.run.result import Run

TINY = """
[task]
function = "quadratic"
batch_size = 1
options = { dimension = 4, sigma2 = 0.1 }
[cluster]
num_workers = 2
[cluster.speeds]
profile = "half_slower"
seconds = 0.01
[budget]
time_s = 0.5
[evaluation]
every_samples = 4
[benchmark]
methods = ["asynchronous:scale", "minibatch"]
metric = "suboptimality"
target = 0.4
lowest = 0.25
highest = 0.5
per_octave = 1
widen = 0
tuning_seeds = 1
seeds = 2
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY)
    return "tiny.toml"


def run(monkeypatch, capsys, *arguments):
    return run_command(monkeypatch, capsys, "bench", "minibatch", *arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give a CONFIG or --preset"),
        (["tiny.toml", "--preset", "quick"], "give a CONFIG or --preset"),
        (["--preset", "slow"], "allowed: quick"),
        (["none.toml"], "none.toml: there is no such file"),
        (["tiny.toml", "--methods", "asynchronous,sync"], "there is no method 'sync'"),
        (["tiny.toml", "--also", "optimizer.momentum"], "--also optimizer.momentum: allowed is key=value"),
        (["tiny.toml", "--out", "tiny.toml"], "--out tiny.toml"),
    ],
)
def test_wrong_usage_is_one_sentence(monkeypatch, capsys, config, arguments, sentence):
    status, out, err = run(monkeypatch, capsys, *arguments)
    assert status == 2 and out == "" and sentence in err and err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.cluster
def test_a_metric_that_the_task_does_not_report_ends_it_with_the_first_real_run(monkeypatch, capsys, config, tmp_path):
    real = ["--set", "cluster.speeds.profile=real", "--set", "benchmark.metric=suboptimallity", "--out", "out"]
    status, out, err = run(monkeypatch, capsys, config, *real, "--json")
    assert (
        status == 2
        and out == ""
        and err.splitlines()[-1].endswith(
            "benchmark.metric = 'suboptimallity': this task reports test_loss, train_loss, suboptimality"
        )
    )
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_interrupted_and_gone_on_with_to_the_end(config, tmp_path):
    command = [sys.executable, "-m", "asgd", "bench", "minibatch", config, "--out", "out", "--jobs", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        line = next(line for line in process.stdout if "gradients/s" in line)  # one real run has ended
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130, line
        process.stdout.read()
        assert "the same command goes on" in process.stderr.read()
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(kept["runs"]) == 1 and len(kept["cells"]) == 4 and not kept["complete"]

    ended = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    result = json.loads(ended.stdout)
    assert result["complete"] and result["runs"][0] == kept["runs"][0]
    assert len(result["runs"]) == 2 * 2 + 2 * 2 and len(result["cells"]) == 4
    assert [row["label"] for row in result["rows"]] == ["asynchronous, scale", "mini-batch"]
    assert result["rows"][0]["predicted_ratio"] == pytest.approx(2.5)
    assert result["rows"][0]["gradients_per_s"]["value"] > 50  # of 125 by the speeds; the machine may be busy
    assert {path.suffix for path in (tmp_path / "out").iterdir()} >= {".json", ".png", ".svg"}
    measured = [path for path in (tmp_path / "out" / "runs").iterdir() if path.name.startswith("measure")]
    assert len(measured) == 4
    for path in measured:
        finished = Run(path)
        assert check_trace(finished.trace, finished.summary.outstanding) == []
        assert not (path / "checkpoints").exists()

    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "nothing is measured again" in again.stdout and "warning: 2 measured seeds" in again.stdout
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 8
