"""The run directory: nothing is lost, doubled or mistaken for finished."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.records import row, summary, written

from asgd.core.trace import TraceRow
from asgd.errors import RunError
from asgd.run.formats import MetricsRow
from asgd.run.records import RunDirectory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "first"


def test_what_is_written_is_read(path: Path) -> None:
    with RunDirectory.create(path, "seed = 3\n") as run:
        rows = [
            row(0),
            row(1, action="discard", steps=0, step_size=None, reason="not finite \u2028 \n"),
            row(2, version=1, assigned_s=0.25, queue_s=0.0625, started_s=0.375),
        ]
        for each in rows:
            run.append_trace(each)
        metrics = MetricsRow(time_s=1.0, version=2, samples_seen=128, test_loss=1.5, results={"top5": 0.9})
        run.append_metrics(metrics)
    found = RunDirectory.open(path)
    assert found.read_trace() == rows
    assert found.read_metrics() == [metrics]
    assert found.read_config() == "seed = 3\n"
    assert found.notes == []
    first = json.loads((path / "trace.jsonl").read_text().splitlines()[0])
    assert list(first) == [field.name for field in dataclasses.fields(TraceRow)]


def test_a_record_from_before_the_times_of_jobs_and_server_is_read(path: Path) -> None:
    written(path, 2)
    with RunDirectory.open(path, mode="write") as run:
        run.write_summary(summary())
    lines = [json.loads(line) for line in (path / "trace.jsonl").read_text().splitlines()]
    for line in lines:
        assert [line.pop(name) for name in ("assigned_s", "queue_s", "started_s")] == [None, 0.0, None]
    (path / "trace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    content = json.loads((path / "summary.json").read_text())
    content["server"] = {"busy_fraction": 0.25, "bytes_in": 1000, "bytes_out": 2000}
    (path / "summary.json").write_text(json.dumps(content))
    found = RunDirectory.open(path)
    assert found.read_trace() == [row(0), row(1)]
    assert found.read_summary() == summary()


def test_numbers_that_are_not_finite_become_null(path: Path) -> None:
    with RunDirectory.create(path, "") as run:
        run.append_trace(row(0, loss=math.nan))
        run.append_trace(row(1, loss=math.inf))
        run.append_metrics(
            MetricsRow(time_s=0.0, version=0, samples_seen=0, test_loss=math.inf, results={"x": math.nan})
        )
        for name in ("time_s", "compute_s", "wait_s", "assigned_s", "queue_s", "started_s"):
            with pytest.raises(RunError, match="Arrival 2 has a time that is not a finite number"):
                run.append_trace(row(2, **{name: math.nan}))
        run.flush()
        assert [each.loss for each in run.read_trace()] == [None, None]
        assert run.read_metrics() == [MetricsRow(time_s=0.0, version=0, samples_seen=0, results={"x": None})]
    assert "NaN" not in (path / "trace.jsonl").read_text() + (path / "metrics.jsonl").read_text()


def test_lines_appear_with_flush_and_always_whole(path: Path) -> None:
    with RunDirectory.create(path, "") as run:
        run.append_trace(row(0))
        assert run.read_trace() == []
        run.flush()
        assert len(run.read_trace()) == 1
        arrival = 1
        while (path / "trace.jsonl").stat().st_size < 1 << 20:  # writes by itself before memory grows without bound
            assert arrival < 20_000, "nothing was written without a flush"
            run.append_trace(row(arrival))
            arrival += 1
        assert (path / "trace.jsonl").read_bytes().endswith(b"}\n")


def test_a_run_is_never_overwritten_without_being_told(path: Path) -> None:
    written(path, 2)
    before = (path / "trace.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"already holds a run.*--run-dir.*--resume.*--overwrite") as caught:
        RunDirectory.create(path, "seed = 1\n")
    assert str(path) in str(caught.value)
    assert (path / "trace.jsonl").read_bytes() == before
    assert (path / "config.toml").read_text() == "seed = 0\n"


def test_overwriting_removes_the_old_run_and_nothing_else(path: Path) -> None:
    with RunDirectory.create(path, "") as run:
        assert run.next_incarnation() == 0
        run.append_trace(row(0))
        run.write_summary(summary())
    (path / "checkpoints").mkdir()
    (path / "checkpoints" / "version-000000000001.safetensors").write_bytes(b"x")
    (path / "my notes.txt").write_text("keep")
    with RunDirectory.create(path, "seed = 1\n", overwrite=True) as run:
        assert {entry.name for entry in path.iterdir()} == {"config.toml", "run.lock", "my notes.txt"}
        assert run.read_trace() == []
        assert run.next_incarnation() == 0


def test_a_directory_that_is_no_run_is_left_alone(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(RunError, match="is not the directory of a run and is left alone"):
            RunDirectory.create(path, "", overwrite=overwrite)
    assert [entry.name for entry in path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RunError, match=r"not the directory of a run: it has no config\.toml"):
        RunDirectory.open(path)
    with pytest.raises(RunError, match="does not exist"):
        RunDirectory.open(path / "nowhere")
    with pytest.raises(RunError, match="is a file"):
        RunDirectory.create(path / "thesis.tex", "")
    with pytest.raises(RunError, match="cannot be made: Not a directory"):
        RunDirectory.create(path / "thesis.tex" / "run", "")


def test_an_empty_directory_will_do(path: Path) -> None:
    path.mkdir(parents=True)
    RunDirectory.create(path, "").close()
    assert (path / "config.toml").exists()


def test_only_the_end_leaves_a_summary(path: Path) -> None:
    with RunDirectory.create(path, "") as run:
        run.append_trace(row(0))
        assert not run.is_finished()
        with pytest.raises(RunError, match=r"has no summary\.json"):
            run.read_summary()
        run.write_summary(summary())
        assert run.is_finished()
        assert len(run.read_trace()) == 1  # the summary comes after everything else
        assert run.read_summary() == summary()
        run.remove_summary()
        assert not run.is_finished()
    assert not list(path.glob("*.tmp")) and not list(path.glob(".*.tmp"))


def test_summary_has_the_keys_of_the_format_and_bears_additions(path: Path) -> None:
    with RunDirectory.create(path, "") as run:
        run.write_summary(summary())
    content = json.loads((path / "summary.json").read_text())
    assert content.keys() >= {"method", "versions", "arrivals", "discarded", "lost", "samples", "wall_s", "concurrency",
                              "delay", "outstanding", "server", "test_accuracy", "parameters_sha256"}  # fmt: skip
    assert content["delay"].keys() >= {"mean_applied", "average", "max", "per_worker"}
    assert content["delay"]["per_worker"] == {"0": 0.5, "1": 1.0}
    assert content["server"].keys() >= {"busy_fraction", "bytes_in", "bytes_out"}
    content["from_the_future"] = 1
    (path / "summary.json").write_text(json.dumps(content))
    assert RunDirectory.open(path).read_summary() == summary()
    del content["versions"]
    (path / "summary.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"damaged.*versions"):
        RunDirectory.open(path).read_summary()


@pytest.mark.parametrize("left", [1, 20, -2, -1])
def test_a_torn_last_line_is_left_out_and_said(path: Path, left: int) -> None:
    written(path, 3)
    content = (path / "trace.jsonl").read_bytes()
    lines = content.splitlines(keepends=True)
    (path / "trace.jsonl").write_bytes(lines[0] + lines[1] + lines[2][:left])
    run = RunDirectory.open(path)
    assert run.read_trace() == [row(0), row(1)]
    assert len(run.notes) == 1 and "torn" in run.notes[0] and "trace.jsonl" in run.notes[0]
    with RunDirectory.open(path, "write") as run:  # going on cuts it off first
        run.append_trace(row(2))
    assert RunDirectory.open(path).read_trace() == [row(0), row(1), row(2)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[:-10],
        lambda line: line.replace(b'"worker":1', b'"worker":"1"'),
        lambda line: line.replace(b'"worker":1', b'"worker":1.5'),
        lambda line: line.replace(b'"worker":1,', b""),
        lambda line: b"\xff" + line[1:],
        lambda line: b"",
        lambda line: line + b"x",
    ],
)
def test_other_damage_names_the_line(path: Path, damage: Any) -> None:
    written(path, 4)
    lines = (path / "trace.jsonl").read_bytes().split(b"\n")
    assert damage(lines[1]) != lines[1]
    lines[1] = damage(lines[1])
    (path / "trace.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(RunError, match=r"Line 2 of .*trace\.jsonl is damaged"):
        RunDirectory.open(path).read_trace()


def test_undoing_arrivals_after_a_checkpoint(path: Path) -> None:
    written(path, 5)
    with (path / "trace.jsonl").open("ab") as file:
        file.write(b'{"arrival":5,"ti')
    with RunDirectory.open(path, "write") as run:
        assert run.truncate_trace(3) == 2
        assert run.read_trace() == [row(0), row(1), row(2)]
        run.append_trace(row(3, job=2**32))
        run.flush()
        assert run.truncate_trace(3) == 1
        assert run.truncate_trace(3) == 0
        run.append_trace(row(3, job=2**33))
    assert RunDirectory.open(path).read_trace() == [row(0), row(1), row(2), row(3, job=2**33)]
    undone = [json.loads(line) for line in (path / "trace.undone.jsonl").read_text().splitlines()]
    assert [(each["arrival"], each["job"]) for each in undone] == [(3, 3), (4, 4), (3, 2**32)]


def test_undoing_needs_the_lines_before_the_checkpoint(path: Path) -> None:
    written(path, 3)
    with RunDirectory.open(path, "write") as run:
        with pytest.raises(RunError, match="has 3 lines and the checkpoint came after 4 arrivals"):
            run.truncate_trace(4)
        lines = (path / "trace.jsonl").read_bytes().splitlines(keepends=True)
        (path / "trace.jsonl").write_bytes(lines[0] + lines[2])
        with pytest.raises(RunError, match=r"Line 2 of .* has arrival 2, and 1 belongs there"):
            run.truncate_trace(2)
        assert (path / "trace.jsonl").read_bytes() == lines[0] + lines[2]


def test_undoing_evaluations_after_a_checkpoint(path: Path) -> None:
    with RunDirectory.create(path, "") as run:
        for version in (0, 20, 10, 30):
            run.append_metrics(MetricsRow(time_s=1.0, version=version, samples_seen=version))
        assert run.truncate_metrics(10) == 2
        assert [each.version for each in run.read_metrics()] == [0, 10]
    assert [json.loads(line)["version"] for line in (path / "metrics.undone.jsonl").read_text().splitlines()] == [
        20,
        30,
    ]


def test_undoing_where_nothing_was_recorded(path: Path) -> None:
    with RunDirectory.create(path, "") as run:
        assert run.truncate_trace(0) == 0
        assert run.truncate_metrics(0) == 0
        assert not (path / "trace.undone.jsonl").exists()


def test_incarnations_count_up_across_restarts(path: Path) -> None:
    with RunDirectory.create(path, "") as run:
        assert [run.next_incarnation(), run.next_incarnation()] == [0, 1]
    with RunDirectory.open(path, "write") as run:
        assert run.next_incarnation() == 2
    (path / "incarnation.json").write_text("{")
    with RunDirectory.open(path, "write") as run, pytest.raises(RunError, match=r"incarnation\.json is damaged"):
        run.next_incarnation()


def test_reading_needs_no_lock_and_cannot_write(path: Path) -> None:
    with RunDirectory.create(path, ""):
        reader = RunDirectory.open(path)
        assert reader.read_trace() == []
        for write in (reader.next_incarnation, lambda: reader.append_trace(row(0)), lambda: reader.truncate_trace(0)):
            with pytest.raises(RunError, match="closed or open for reading"):
                write()


def test_two_servers_cannot_write_one_directory(path: Path) -> None:
    with RunDirectory.create(path, ""):
        with pytest.raises(RunError, match=rf"Another process \({os.getpid()}\) is writing the run directory"):
            RunDirectory.open(path, "write")
        with pytest.raises(RunError, match="Another process"):
            RunDirectory.create(path, "", overwrite=True)
        assert (path / "config.toml").exists()
    RunDirectory.open(path, "write").close()


SERVER_WITH_A_CHILD = """
import os, sys
from asgd.run.records import RunDirectory
run = RunDirectory.open(sys.argv[1], "write")
ready, ready_write = os.pipe()
child = os.fork()
if child == 0:
    os.write(ready_write, b"x")
    os.read(0, 1)  # stays until the test closes its standard input
    os._exit(0)
os.read(ready, 1)
print("locked", flush=True)
os.kill(os.getpid(), 9)
"""


def test_death_gives_the_lock_back_even_with_children_left(path: Path) -> None:
    written(path, 1)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER_WITH_A_CHILD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b"locked\n"
        assert process.wait(30) == -signal.SIGKILL
        RunDirectory.open(path, "write").close()
        process.stdin.close()


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Writes beyond a size fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_whole_lines_and_can_be_tried_again(path: Path) -> None:
    with RunDirectory.create(path, "") as run:
        run.append_trace(row(0))
        run.flush()
        for arrival in range(1, 6):
            run.append_trace(row(arrival))
        with largest_file(700), pytest.raises(RunError, match=r"trace\.jsonl cannot be written: File too large"):
            run.flush()
        assert RunDirectory.open(path).read_trace() == [row(0)]
        assert RunDirectory.open(path).notes == []
        with largest_file(100), pytest.raises(RunError, match="cannot be written"):
            run.write_summary(summary())
        assert not run.is_finished()
    assert len(RunDirectory.open(path).read_trace()) == 6
    assert not list(path.glob(".*"))


@pytest.mark.slow
def test_a_long_trace_is_read_fast(path: Path) -> None:
    with RunDirectory.create(path, "") as run:
        for arrival in range(100_000):
            run.append_trace(row(arrival))
    started = time.perf_counter()
    rows = RunDirectory.open(path).read_trace()
    took_s = time.perf_counter() - started
    assert rows[99_999] == row(99_999)
    assert took_s < 3.0  # about 0.3 s on an idle core; the limit leaves room for a busy one
