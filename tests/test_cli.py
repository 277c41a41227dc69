"""The command line: exit status and one sentence for bad input, one JSON object where it is asked for, interrupts."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import typer
from helpers.command import run_command

from asgd import cli
from asgd.cli.training import exit_as
from asgd.learn.gradient import evaluate
from asgd.run.signals import StopRequests

BUDGET = ["--set", "budget.versions=30"]
TINY = """
[task]
function = "quadratic"
options = { dimension = 4 }
batch_size = 2
[cluster]
num_workers = 2
[budget]
versions = 30
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY)
    return "tiny.toml"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "none.toml"], "none.toml: there is no such file"),
        (["train", "tiny.toml", "--set", "method.stepsize=1"], "did you mean method.step_size?"),
        (["train", "tiny.toml", "--set", "method.name=asynchronus"], "method.name = 'asynchronus'"),
        (["train", "tiny.toml", "--set", "method.name=fedasync"], "method.local_steps = 0"),
        (["train", "tiny.toml", "--set", "cluster.speeds.profile=warp"], "cluster.speeds.profile is 'warp'"),
        (["train"], "asgd train needs a CONFIG"),
        (["train", "--resume"], "--resume goes on with an existing run"),
        (["simulate", "tiny.toml"], "a simulation needs emulated speeds"),
        (["server", "tiny.toml"], "cluster.address = 'ipc' is private to a local cluster"),
        (["config", "tiny.toml", "--set", "seed=-1"], "seed"),
        (["train", "--frobnicate"], "No such option"),
        (["tune", "tiny.toml"], "tuning runs in virtual time and needs emulated speeds"),
        (["tune", "tiny.toml", "--step-sizes", "0.1,x"], "--step-sizes 0.1,x: allowed are numbers with commas"),
        (["tune", "tiny.toml", "--step-sizes", "0.1", "--to", "1"], "it goes without --from and --to"),
        (["tune", "tiny.toml", "--from", "2", "--to", "1"], "--from 2 --to 1"),
        (["tune", "tiny.toml", "--also", "seed"], "--also seed: allowed is key=value,value,..."),
        (["tune", "tiny.toml", "--score", "time"], "score = 'time' needs a target (--target)"),
    ],
)
def test_wrong_usage_is_status_2_one_sentence_and_no_directory(
    config, tmp_path, monkeypatch, capsys, arguments, sentence
):
    status, out, err = run_command(monkeypatch, capsys, *arguments)
    assert (status, out) == (2, "") and sentence in err
    assert "Traceback" not in err
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.toml"], "nothing is left behind"


@pytest.mark.parametrize("command", [["check", "nowhere"], ["export", "nowhere", "x.safetensors"]])
def test_a_run_that_is_not_there_is_status_1(config, monkeypatch, capsys, command):
    status, _, err = run_command(monkeypatch, capsys, *command)
    assert status == 1 and "nowhere is not the directory of a run" in err


def test_methods_and_config_print_what_is_there(config, monkeypatch, capsys):
    status, out, _ = run_command(monkeypatch, capsys, "methods", "--json")
    assert status == 0 and {"asynchronous", "minibatch"} <= json.loads(out)["methods"].keys()
    assert "scale" in json.loads(out)["rules"]
    status, out, _ = run_command(monkeypatch, capsys, "config", config)
    assert status == 0 and re.search(r"^step_size = 0.05$", out, re.M)


def test_debug_shows_the_traceback(config, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["asgd", "train", "none.toml", "--debug"])
    with pytest.raises(cli.AsgdError, match=r"none.toml"):
        cli.main()


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "asgd", *arguments], capture_output=True, text=True, timeout=110, **options
    )


@pytest.mark.cluster
def test_train_check_export_resume_from_the_command_line(config, tmp_path):
    done = command("train", config, "--run-dir", "r", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["versions"] == 30
    again = command("train", config, "--run-dir", "r", cwd=tmp_path)
    assert again.returncode == 1 and "already holds a run" in again.stderr
    more = command("train", "--resume", "--run-dir", "r", "--set", "budget.versions=50", "--json", cwd=tmp_path)
    assert more.returncode == 0 and json.loads(more.stdout)["versions"] == 50
    checked = command("check", "r", "--json", cwd=tmp_path)
    books = json.loads(checked.stdout)
    assert checked.returncode == 0 and books["problems"] == [] and books["delays"] == books["aged"]
    assert command("export", "r", "m.safetensors", cwd=tmp_path).returncode == 0
    assert (tmp_path / "m.safetensors").stat().st_size > 16


@pytest.mark.cluster
def test_a_port_in_use_and_a_server_that_is_not_there(config, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        failed = command("train", config, "--set", f"cluster.address=tcp://127.0.0.1:{port}", cwd=tmp_path)
    assert failed.returncode == 1 and f"cannot listen at tcp://127.0.0.1:{port}: the address is in use" in failed.stderr
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        alone = command("worker", config, "--connect", address, "--set", "cluster.start_timeout_s=1", cwd=tmp_path)
    assert alone.returncode == 1 and f"no server answers at {address} (waited 1 s)" in alone.stderr


@pytest.mark.cluster
def test_roles_by_hand_and_an_interrupt(config, tmp_path):
    """One role a process, over a socket in the file system; the server is interrupted when it has been trained with."""
    address = f"ipc://{tmp_path}/s"
    options = [config, "--set", "budget.versions=1000000", "--set", "cluster.num_workers=1"]
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "asgd", "server", *options, "--bind", address, "--run-dir", "r"],
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    others = []
    try:
        assert "listening" in server.stderr.readline()
        for role in ("worker", "evaluator"):
            others.append(
                subprocess.Popen(
                    [sys.executable, "-u", "-m", "asgd", role, *options, "--connect", address],
                    cwd=tmp_path,
                    text=True,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
            )
        for process in others:
            assert "of run r" in process.stderr.readline()
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=60)
        assert server.returncode == 130, err
        assert "interrupted by SIGINT" in out
        assert [process.wait(60) for process in others] == [0, 0]
    finally:
        for process in [server, *others]:
            if process.poll() is None:
                process.kill()
            process.communicate()
    assert json.loads((tmp_path / "r" / "summary.json").read_bytes())["finished"] is False
    assert not os.path.exists(f"{tmp_path}/s")


def test_a_simulation_tells_who_has_which_data_and_how_much_each_counted(config, monkeypatch, capsys):
    changes = ["task.partition=by_size", "cluster.speeds.profile=half_slower", "cluster.num_workers=3"]
    arguments = ["simulate", config, *(word for change in changes for word in ("--set", change))]
    status, out, err = run_command(monkeypatch, capsys, *arguments, "--run-dir", "r")
    assert status == 0 and err == ""
    lines = out.splitlines()
    assert lines[0] == "partition by_size; every worker has the weight 1/3" and lines[2].split()[0] == "0"
    assert "biased toward the data of fast workers" in out
    shares = next(line for line in lines if "share of gradients" in line)
    assert re.search(r"\d\.\d% \(worker 2\) to \d\d\.\d% \(worker [01]\)", shares) and "share of steps" in out
    assert (pathlib.Path("r") / "logs" / "simulator.log").read_text().splitlines() == lines[:6]
    status, out, _ = run_command(monkeypatch, capsys, *arguments, "--run-dir", "r", "--overwrite", "--json")
    assert status == 0 and set(json.loads(out)["workers"]) == {"0", "1", "2"}
    status, out, _ = run_command(monkeypatch, capsys, *arguments[:2], *arguments[4:], "--run-dir", "s")
    assert status == 0 and "share" not in out and not (pathlib.Path("s") / "logs").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_simulation_shows_its_table_and_leaves_its_files(config, monkeypatch, capsys, number):
    def evaluate_and_interrupt(*arguments):
        signal.raise_signal(number)
        return evaluate(*arguments)

    monkeypatch.setattr("asgd.sim.simulate.evaluate", evaluate_and_interrupt)
    arguments = ["simulate", config, "--set", "cluster.speeds.profile=equal"]
    before = signal.getsignal(number)
    status, out, err = run_command(monkeypatch, capsys, *arguments, "--run-dir", "r")
    assert (status, err) == (130, "") and f"interrupted by {number.name}" in out
    assert json.loads(pathlib.Path("r/summary.json").read_bytes())["versions"] < 30
    assert list(pathlib.Path("r/checkpoints").glob("*.safetensors"))
    status, out, _ = run_command(monkeypatch, capsys, *arguments, "--run-dir", "s", "--json")
    assert status == 130 and json.loads(out)["stopped_because"] == f"interrupted by {number.name}"
    assert signal.getsignal(number) == before


TUNE = ["tune", "tiny.toml", "--set", "cluster.speeds.profile=equal", "--metric", "suboptimality"]


@pytest.mark.slow
def test_tune_prints_a_table_or_one_object(config, tmp_path):
    grid = ["--step-sizes", "0.1,0.4,1e30", "--also", "method.name=asynchronous,minibatch", "--seeds", "2"]
    done = command(*TUNE, *grid, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "lower is better" in done.stdout and "2 seeds from 0 on" in done.stdout
    assert len(re.findall(r"^ *(?:asynchronous|minibatch) +1e\+30 +diverged \(2 of 2\)", done.stdout, re.M)) == 2
    used = re.search(r"^use it with: --set 'method.name=\"(\w+)\"' --set method.step_size=0.4$", done.stdout, re.M)
    assert used, done.stdout
    listed = command(*TUNE, *grid, "--json", "--out", "t.json", "--jobs", "1", cwd=tmp_path)
    tuning = json.loads(listed.stdout)
    assert tuning == json.loads((tmp_path / "t.json").read_bytes())
    assert tuning["overrides"] == [f'method.name="{used[1]}"', "method.step_size=0.4"]
    assert len(tuning["rows"]) == 6 and len(tuning["cells"]) == 12 and tuning["complete"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["t.json", "tiny.toml"], "no run is left behind"


@pytest.mark.slow
def test_an_interrupted_tune_shows_what_was_measured(config, tmp_path):
    # The first diverges at once; the second would go on for hours.
    options = ["--step-sizes", "1e30,0.01", "--seeds", "1", "--jobs", "2", "--set", "budget.versions=100000000"]
    tuning = subprocess.Popen(
        [sys.executable, "-u", "-m", "asgd", *TUNE, *options],
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        while "1 of 2 simulations" not in tuning.stdout.readline():
            assert tuning.poll() is None
        tuning.send_signal(signal.SIGINT)
        out, err = tuning.communicate(timeout=60)
    finally:
        if tuning.poll() is None:
            tuning.kill()
        tuning.communicate()
    assert tuning.returncode == 130, err
    assert "diverged (1 of 1)" in out and "interrupted: this is what was measured until then" in out


@pytest.mark.parametrize(
    ("because", "missing", "asked", "status"),
    [
        ("interrupted by SIGINT", 0, True, 130),
        ("budget used up: versions = 9", 3, True, 130),  # while the last versions were evaluated
        ("budget used up: versions = 9", 0, True, 0),  # too late to change anything
        ("budget used up: versions = 9", 3, False, 0),
    ],
)
def test_the_status_of_a_run_that_was_asked_to_stop(because, missing, asked, status):
    stops, summary = StopRequests(), SimpleNamespace(stopped_because=because, evaluations_missing=missing)
    if asked:
        stops.ask("interrupted by SIGINT")
    with pytest.raises(typer.Exit) if status else contextlib.nullcontext() as ended:
        exit_as(summary, stops)
    assert status == (ended.value.exit_code if ended else 0)
