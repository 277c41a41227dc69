"""Recorded runs whose trace is damaged: one sentence, and nothing is made."""

from __future__ import annotations

import json
import shutil

import pytest

from asgd.api import simulate
from asgd.errors import RunError

CONFIG = {
    "task": {"function": "quadratic", "options": {"dimension": 4}, "batch_size": 2},
    "method": {"name": "rennala", "step_size": 0.1, "options": {"batch": 2}},
    "cluster": {"num_workers": 3, "speeds": {"profile": "exponential", "seconds": 0.1}},
    "budget": {"gradients": 30},
    "schedule": {"total": 30},
    "evaluation": {"evaluate": "never"},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "whole"
    simulate(CONFIG, run_dir=path)
    return path


def copy(whole, path, damage, killed):
    """A copy of the run with a damaged trace; that of a killed run has no summary."""
    shutil.copytree(whole, path)
    trace = path / "trace.jsonl"
    content = damage(trace.read_bytes())
    if content is None:
        trace.unlink()
    else:
        trace.write_bytes(content)
    if killed:
        (path / "summary.json").unlink()


def edited(number, **values):
    """What changes a line of a trace."""

    def edit(content):
        lines = content.splitlines()
        lines[number] = json.dumps(json.loads(lines[number]) | values).encode()
        return b"\n".join(lines) + b"\n"

    return edit


def first_lines(number):
    return lambda content: b"".join(content.splitlines(keepends=True)[:number])


DAMAGES = {
    "missing": (lambda content: None, "has 0 whole lines, and the run ended after 30", "is missing or has no line"),
    "empty": (lambda content: b"", "has 0 whole lines, and the run ended after 30", "is missing or has no line"),
    "one torn line": (lambda content: content[:9], "has 0 whole lines", "is missing or has no line"),
    "last line torn": (lambda content: content[:-9], "has 29 whole lines, and the run ended after 30", None),
    "cut off": (first_lines(12), "has 12 whole lines, and the run ended after 30", None),
    "something after it": (lambda content: content + b"{", "ends within a line, and the run has ended", None),
    "a line gone": (lambda content: b"".join(content.splitlines(keepends=True)[1:]), "has 29 whole", "has arrival 1"),
    "a falling time": (edited(9, time_s=0.001), *["Row 9 has time 0.001 s, after .* time does not go back"] * 2),
    "a negative time": (edited(0, time_s=-0.5), *["Row 0 has time -0.5 s, after 0.0 s"] * 2),
    "another delay": (edited(7, delay=9), *["Row 7 has delay 9"] * 2),
    "not JSON": (lambda content: content.replace(b"{", b"(", 1), *["Line 1 of .* is damaged"] * 2),
}
CASES = [
    pytest.param(damage, killed, sentence, id=f"{name}, {'killed' if killed else 'ended'}")
    for name, (damage, *sentences) in DAMAGES.items()
    for killed, sentence in zip((False, True), sentences, strict=True)
]


@pytest.mark.parametrize(("damage", "killed", "sentence"), [case for case in CASES if case.values[2] is not None])
def test_a_damaged_trace_is_refused_before_anything_is_made(whole, tmp_path, damage, killed, sentence):
    copy(whole, tmp_path / "recorded", damage, killed)
    with pytest.raises(RunError, match=sentence) as refused:
        simulate(CONFIG, run_dir=tmp_path / "run", times=tmp_path / "recorded")
    assert refused.value.exit_status == 1 and "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("damage", "killed", "sentence"), [case for case in CASES if case.values[2] is None])
def test_a_killed_runs_trace_may_end_anywhere(whole, tmp_path, damage, killed, sentence):
    copy(whole, tmp_path / "recorded", damage, killed)
    again = simulate(CONFIG, run_dir=tmp_path / "run", times=tmp_path / "recorded")
    lines = (tmp_path / "recorded" / "trace.jsonl").read_bytes().count(b"\n")
    assert (tmp_path / "run" / "trace.jsonl").read_bytes() == first_lines(lines)((whole / "trace.jsonl").read_bytes())
    assert len(again.trace) == lines


def test_the_whole_run_is_driven_again(whole, tmp_path):
    again = simulate(CONFIG, run_dir=tmp_path / "run", times=whole)
    assert (tmp_path / "run" / "trace.jsonl").read_bytes() == (whole / "trace.jsonl").read_bytes()
    assert again.summary.finished
