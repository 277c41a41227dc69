"""A bit that is flipped, or an end that is missing, anywhere in checkpoint or journal: what a run then goes on with."""

from __future__ import annotations

import random
import shutil

import pytest
from helpers.live_server import LiveServer

from asgd.config import load_config
from asgd.errors import RunError
from asgd.learn.gradient import build_model
from asgd.run.checkpoints import list_checkpoints
from asgd.run.evaluations import Evaluations
from asgd.run.journal import entries
from asgd.run.records import RunDirectory
from asgd.run.recovery import recover
from asgd.run.vectors import Vectors, kept_of_jobs, make_update

CONFIG = {
    "seed": 3,
    "task": {"function": "quadratic", "options": {"dimension": 6, "sigma2": 0.1}, "batch_size": 2},
    "method": {"step_size": 0.1},
    "optimizer": {"momentum": 0.3},
    "cluster": {"num_workers": 3},
    "budget": {"gradients": 90},
    "evaluation": {"evaluate": "never"},
    "recovery": {"mode": "exact", "grace_s": 0.0},
}
SAVED_AT, CRASHED_AT = (15, 27), 38
SAID = ("It is skipped.", "damaged or torn and have been cut off", "it is put aside")


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """A run that has crashed, its rows, and the parameters after each of them."""
    live = LiveServer(tmp_path_factory.mktemp("damage") / "run", load_config(CONFIG))
    live.join_all(3)
    hashes = {0: live.flat.parameters_sha256()}
    while live.state.rows < CRASHED_AT:
        live.answer()
        hashes[live.state.rows] = live.flat.parameters_sha256()
        if live.state.rows in SAVED_AT:
            live.save()
    live.directory.flush()
    rows = live.directory.read_trace()
    assert len(rows) == CRASHED_AT and len(set(hashes.values())) == CRASHED_AT + 1
    live.crash()
    return live, rows, hashes


def recovered(live, path, mode):
    """What a server would go on with: arrivals, parameters, the trace, and what was said."""
    config, notes = load_config(live.config, [f"recovery.mode={mode}"]), []
    flat = build_model(live.task, config.seed)
    vectors = Vectors(flat, make_update(config, flat), kept_of_jobs(config))
    with RunDirectory.open(path, mode="write") as directory:
        directory.next_incarnation()
        evaluations = Evaluations(config, path / "snapshots")
        state = recover(config, live.task, directory, flat, vectors, evaluations, notes.append).state
        return state.rows, flat.parameters_sha256(), directory.read_trace(), notes


def check(live, rows, hashes, path, mode):
    """Either one sentence, or an intact state that is said if it isn't the newest; returns which."""
    try:
        num_rows, parameters, trace, notes = recovered(live, path, mode)
    except RunError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return "refused"
    assert parameters == hashes[num_rows]
    assert trace == rows[:num_rows]
    newest = CRASHED_AT if mode == "exact" else SAVED_AT[-1]
    said = any(sentence in note for note in notes for sentence in SAID)
    assert num_rows == newest or (num_rows < newest and said)
    return "said" if said else "whole"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["exact", "checkpoint"])
@pytest.mark.parametrize("damaged", ["checkpoint", "journal"])
@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_damage_anywhere_is_said_or_refused_and_never_a_wrong_number(tmp_path, crashed, damage, damaged, mode):
    live, rows, hashes = crashed
    chance, outcomes = random.Random(5), set()
    for number in range(40):
        path = tmp_path / str(number)
        shutil.copytree(live.path, path)
        file = path / "journal.bin" if damaged == "journal" else list_checkpoints(path / "checkpoints")[-1][1]
        content = bytearray(file.read_bytes())
        at = (len(content) * number + chance.randrange(len(content))) // 40  # one in each fortieth
        if damage == "flipped":
            content[at] ^= 1 << chance.randrange(8)
        else:
            del content[at:]
        file.write_bytes(content)
        outcomes.add(check(live, rows, hashes, path, mode))
        shutil.rmtree(path)
    expected = {
        ("checkpoint", "exact"): {"said"},
        ("checkpoint", "checkpoint"): {"said"},
        ("journal", "exact"): {"said", "refused"},
        ("journal", "checkpoint"): {"said"},
    }[damaged, mode]
    assert expected <= outcomes | ({"said"} if damage == "cut" else set())


def kept_files(path):
    names = ("trace.jsonl", "journal.bin", "metrics.jsonl")
    return {name: (path / name).read_bytes() for name in names if (path / name).exists()}


@pytest.fixture
def copy(tmp_path, crashed):
    shutil.copytree(crashed[0].path, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("mode", ["exact", "checkpoint"])
def test_a_trace_with_missing_lines_is_refused_and_all_stays_as_it_is(crashed, copy, mode):
    lines = (copy / "trace.jsonl").read_bytes().splitlines(keepends=True)
    (copy / "trace.jsonl").write_bytes(b"".join(lines[:20]))
    before = kept_files(copy)
    with pytest.raises(RunError, match="has 20 lines and the checkpoint came after 27 arrivals: lines are missing"):
        recovered(crashed[0], copy, mode)
    assert kept_files(copy) == before


def test_a_trace_that_goes_on_after_the_end_of_the_journal_is_cut_and_said(crashed, copy):
    live, rows, hashes = crashed
    content = (copy / "journal.bin").read_bytes()
    last = [entry.offset for entry in entries(copy / "journal.bin")][-3]
    (copy / "journal.bin").write_bytes(content[:last])  # between two records: no checksum tells
    num_rows, parameters, trace, notes = recovered(live, copy, "exact")
    assert (num_rows, parameters, trace) == (CRASHED_AT - 3, hashes[num_rows], rows[:num_rows])
    assert "the end of the journal was lost: 3 later arrivals of the trace are undone" in notes
    assert len((copy / "trace.undone.jsonl").read_bytes().splitlines()) == 3


@pytest.mark.parametrize("mode", ["exact", "checkpoint"])
def test_the_journal_of_another_run_of_the_same_configuration_is_not_taken(crashed, copy, mode, tmp_path):
    live, _, hashes = crashed
    other = LiveServer(tmp_path / "other", load_config(CONFIG), seed=1)
    other.join_all(3)
    other.answers(CRASHED_AT)
    other.crash()
    assert (tmp_path / "other" / "journal.bin").stat().st_size == (copy / "journal.bin").stat().st_size
    shutil.copy(tmp_path / "other" / "journal.bin", copy)
    said = "isn't the one that the checkpoint of version 27 belongs to"
    if mode == "exact":
        with pytest.raises(RunError, match=f"{said}; go on from the checkpoint alone with"):
            recovered(live, copy, mode)
    else:
        _, parameters, _, notes = recovered(live, copy, mode)
        assert parameters == hashes[27] and any(f"{said}; it is put aside" in note for note in notes)


def test_without_a_good_checkpoint_the_journal_is_the_way_back(crashed, copy):
    live, rows, hashes = crashed
    for _, file in list_checkpoints(copy / "checkpoints"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"compute the run again from its journal with --set recovery\.mode=exact"):
        recovered(live, copy, "checkpoint")
    assert recovered(live, copy, "exact")[:3] == (CRASHED_AT, hashes[CRASHED_AT], rows)


@pytest.mark.parametrize("mode", ["exact", "checkpoint"])
@pytest.mark.parametrize("gone", [True, False])
def test_a_number_of_the_server_that_was_there_before_is_refused(crashed, copy, mode, gone):
    """The numbers of the jobs begin with it, and none may come twice."""
    (copy / "incarnation.json").unlink() if gone else (copy / "incarnation.json").write_text('{"next":0}')
    with pytest.raises(RunError, match=r'incarnation.json is damaged: .* 1 times before, so it must hold .*"next": 1'):
        recovered(crashed[0], copy, mode)
