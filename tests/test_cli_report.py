"""`asgd report`, and the report that a run from the command line leaves."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest
from helpers.command import run_command
from helpers.report_runs import ended_run

from asgd.errors import RunError

TINY = """
[task]
function = "quadratic"
options = { dimension = 4 }
batch_size = 2
[cluster]
num_workers = 2
speeds = { profile = "equal" }
[budget]
versions = 30
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY)
    return "tiny.toml"


@pytest.mark.slow
def test_one_object_says_what_was_written_and_the_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ended_run(tmp_path / "one"), ended_run(tmp_path / "two")
    status, out, err = run_command(monkeypatch, capsys, "report", "one", "two", "--json")
    assert (status, err) == (0, "")
    said = json.loads(out)
    assert said["report"] == "report.html" and pathlib.Path("report.html").is_file()
    assert said["figures"] and all(pathlib.Path(path).is_file() for path in said["figures"])
    assert [each["run"] for each in said["runs"]] == ["one", "two"] and said["runs"][0]["versions"] == 40
    assert said["accuracy"]["metric"] == "test_accuracy" and said["runs"][0]["to_accuracy"][2] == 10


@pytest.mark.slow
def test_the_page_goes_where_it_is_told(tmp_path, monkeypatch, capsys):
    ended_run(tmp_path / "one")
    status, out, _ = run_command(monkeypatch, capsys, "report", tmp_path / "one", "--out", tmp_path / "p.html")
    assert status == 0 and out.startswith(f"wrote {tmp_path}/p.html and ") and out.endswith(f"{tmp_path}/p/\n")
    assert (tmp_path / "p.html").is_file() and not (tmp_path / "one" / "report.html").exists()


def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys):
    ended_run(tmp_path / "one")
    for arguments, status, sentence in (
        (["one", "--out", "p.txt"], 2, "--out p.txt: allowed is a file whose name ends in .html"),
        (["one", "one"], 2, "is given 2 times"),
        (["none"], 1, "none is not the directory of a run: it does not exist"),
        ([], 2, "Missing argument 'RUN...'"),
    ):
        monkeypatch.chdir(tmp_path)
        code, out, err = run_command(monkeypatch, capsys, "report", *arguments)
        assert (code, out) == (status, "") and sentence in err


@pytest.mark.slow
def test_a_run_leaves_its_report_unless_told_otherwise(config, monkeypatch, capsys):
    status, out, err = run_command(monkeypatch, capsys, "simulate", config, "--run-dir", "r")
    assert (status, err) == (0, "") and out.endswith("report: r/report.html\n")
    assert "<svg" in pathlib.Path("r/report.html").read_text() and not pathlib.Path("r/report").exists()
    status, out, _ = run_command(monkeypatch, capsys, "simulate", config, "--run-dir", "s", "--json")
    assert status == 0 and json.loads(out)["report"] == "s/report.html"
    without = ["--set", "records.report=false"]
    status, out, _ = run_command(monkeypatch, capsys, "simulate", config, "--run-dir", "t", "--json", *without)
    assert status == 0 and json.loads(out)["report"] is None and not pathlib.Path("t/report.html").exists()
    # What is overwritten takes its report along.
    run_command(monkeypatch, capsys, "report", "r")
    assert pathlib.Path("r/report").is_dir()
    run_command(monkeypatch, capsys, "simulate", config, "--run-dir", "r", "--overwrite", *without)
    assert not pathlib.Path("r/report.html").exists() and not pathlib.Path("r/report").exists()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RunError("r/report.html can't be written: No space left on device."), "no report: r/report.html can't be"),
        (KeyboardInterrupt(), "no report: interrupted (asgd report r draws it)"),
    ],
)
def test_a_run_ends_well_whatever_becomes_of_its_report(config, monkeypatch, capsys, error, sentence):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("asgd.report.writing.write_report", fail)
    status, out, _ = run_command(monkeypatch, capsys, "simulate", config, "--run-dir", "r")
    assert status == 0 and sentence in out


@pytest.mark.cluster
def test_a_cluster_of_processes_leaves_a_report(config, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "asgd", "train", config, "--run-dir", "r", "--json"],
        capture_output=True, text=True, timeout=110, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["report"] == "r/report.html"
    assert "Timeline of the workers" in (tmp_path / "r" / "report.html").read_text()
