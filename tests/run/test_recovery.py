"""A server that dies anywhere goes on to the same bytes, and the whole run can be replayed to the bit afterwards."""

from __future__ import annotations

import pytest
import torch
from helpers import batch_norm_task
from helpers.live_server import Crash, LiveServer

from asgd.api import replay
from asgd.config import load_config, to_toml
from asgd.core.methods import METHODS
from asgd.errors import RunError
from asgd.run.checkpoints import list_checkpoints
from asgd.run.journal import entries
from asgd.run.ledger import check_trace
from asgd.run.records import RunDirectory
from asgd.run.server import Server

CONFIG = {
    "seed": 3,
    "task": {"function": "quadratic", "options": {"dimension": 6, "sigma2": 0.1}, "batch_size": 2},
    "method": {"step_size": 0.1},
    "optimizer": {"momentum": 0.3},
    "schedule": {"name": "cosine", "over": "samples", "total": 400},
    "cluster": {"num_workers": 3},
    "budget": {"gradients": 90},
    "evaluation": {"evaluate": "never"},
    "recovery": {"mode": "exact", "grace_s": 0.0},
}
OPTIONS = {
    "picky": {"threshold": 0.3},
    "malenia": {"batch": 5},
    "m_synchronous": {"m": 2},
    "ringmaster": {"R": 2, "cancel": True},
    "random_assignment": {"concurrency": 4},
}


def configured(method="asynchronous", mode="exact", **changes):
    info = METHODS[method]
    config = CONFIG | {"method": CONFIG["method"] | {"name": method, "options": OPTIONS.get(method, {})}}
    config["recovery"] = CONFIG["recovery"] | {"mode": mode}
    if info.answers == "parameters":
        config["method"] |= {"local_steps": 2}
    if "sgd" in info.optimizers and "momentum" in info.weights_lost_by:
        config["optimizer"] = {}
    return config | changes


def crashing_at(live, monkeypatch, where, nth):
    """Let the server die at its nth event: before the core has it, after it, or after the journal."""
    count = 0
    server, journal, state = live.server, live.directory.journal, live.state

    def counted(function, *arguments):
        nonlocal count
        count += 1
        if count == nth:
            raise Crash
        return function(*arguments)

    target, name = {
        "before the core": (state, "handle"),
        "before the journal": (journal, "append"),
        "before its effects": (server, "_execute"),
    }[where]
    function = getattr(target, name)
    monkeypatch.setattr(target, name, lambda *arguments: counted(function, *arguments))


def check_whole(path, summary, restarts):
    result = replay(path, check=True)
    assert result.is_exact, result.differences
    assert result.recorded_sha256 == result.parameters_sha256 == summary.parameters_sha256
    assert result.restarts == restarts
    with RunDirectory.open(path) as directory:
        rows = directory.read_trace()
    assert check_trace(rows, summary.outstanding) == []
    assert len({row.job for row in rows}) == len(rows), "no job ends twice"
    return rows


def go_on(live, workers=(0, 1, 2)):
    for worker in workers:
        live.join(worker)
    live.keep_house()
    return live.finish()


@pytest.mark.parametrize("where", ["before the core", "before the journal", "before its effects"])
@pytest.mark.parametrize("nth", [1, 2, 5, 17])
def test_a_server_that_dies_at_any_point_ends_on_the_same_bytes(tmp_path, monkeypatch, where, nth):
    live = LiveServer(tmp_path / "run", configured())
    live.join_all(3)
    live.answers(20)
    live.save()
    live.directory.flush()
    live.answers(3)
    with monkeypatch.context() as patch, pytest.raises(Crash):
        crashing_at(live, patch, where, nth)
        live.answers(50)
    expected_rows = live.state.rows
    live.crash()
    until_crash = replay(tmp_path / "run")
    assert until_crash.is_exact
    live.start(resume=True)
    assert live.flat.parameters_sha256() == until_crash.parameters_sha256
    assert expected_rows - live.state.rows == (1 if where == "before the journal" else 0)
    assert set(live.server.expected.jobs()) == {0, 1, 2}
    assert sum(map(len, live.server.expected.jobs().values())) == len(live.state.outstanding) == 3
    rows = check_whole(tmp_path / "run", go_on(live), restarts=1)
    assert [row.job for row in rows[: until_crash.arrivals]] == [row.job for row in rows if row.job < 2**32][:-3]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["exact", "checkpoint"])
def test_every_method_with_deaths_and_restarts(tmp_path, method, mode):
    live = LiveServer(tmp_path / "run", configured(method, mode), seed=7)
    live.join_all(3)
    live.answers(11)
    live.kill(1)
    live.answers(4)
    live.join(1)
    live.answers(5)
    live.save()
    live.answers(7)
    live.kill(0)
    live.answers(2)
    before = live.flat.parameters_sha256(), live.state.version, live.state.rows
    live.crash()
    live.start(resume=True)
    after = live.flat.parameters_sha256(), live.state.version, live.state.rows
    assert (after == before) if mode == "exact" else (after[2] < before[2] + 5)
    for worker in (0, 1, 2):
        live.join(worker)
    live.answers(9)
    live.crash()  # the second time from the same checkpoint
    live.start(resume=True)
    rows = check_whole(tmp_path / "run", go_on(live, (2, 1, 5)), restarts=2 if mode == "exact" else 1)
    assert rows[-1].version > 0


@pytest.mark.parametrize("method", ["asynchronous", "rennala", "m_synchronous", "malenia", "ringleader"])
def test_buffers_that_change_within_a_version(tmp_path, method):
    """What a job is given depends on more than its version then; the server's own vectors are the measure here."""
    task = {"function": f"{batch_norm_task.__file__}:task", "batch_size": 8}
    live = LiveServer(tmp_path / "run", configured(method, task=task), seed=1)
    live.join_all(3)
    live.answers(22)
    live.save()
    live.answers(13)
    before = live.flat.state_S.clone()
    live.crash()
    live.start(resume=True)
    assert torch.equal(live.flat.state_S, before)
    check_whole(tmp_path / "run", go_on(live), restarts=1)


def test_workers_that_do_not_come_back_are_given_up(tmp_path):
    live = LiveServer(tmp_path / "run", configured())
    live.join_all(3)
    live.answers(20)
    live.crash()
    live.start(resume=True)  # there is no checkpoint: from the start
    live.join(1)
    live.keep_house()
    assert list(live.state.workers) == [1] and live.server.expected.jobs() == {}
    rows = check_whole(tmp_path / "run", live.finish(), restarts=1)
    lost = [row.reason for row in rows if row.action == "lost"]
    assert lost == ["the server was restarted"] + 2 * ["not back 0 s after the server's restart"]


@pytest.mark.parametrize("cut", [1, 50, 100, 230])
def test_a_torn_end_of_the_journal_is_cut_off_and_said(tmp_path, cut):
    path = tmp_path / "run"
    live = LiveServer(path, configured())
    live.join_all(3)
    live.answers(12)
    live.save()
    live.answers(12)
    live.directory.flush()
    live.crash()
    content = (path / "journal.bin").read_bytes()
    (path / "journal.bin").write_bytes(content[:-cut])
    live.start(resume=True)
    assert any("damaged or torn and have been cut off" in note for note in live.notes)
    assert 12 <= live.state.rows < 24
    check_whole(path, go_on(live), restarts=1)


@pytest.mark.parametrize("entry", [8, 20])
def test_damage_in_the_middle_is_an_error_that_says_where_and_what_to_do(tmp_path, entry):
    """Mode checkpoint needs the journal up to the checkpoint, the 16th entry."""
    path = tmp_path / "run"
    live = LiveServer(path, configured())
    live.join_all(3)
    live.answers(12)
    live.save()
    live.answers(12)
    live.directory.flush()
    live.crash()
    offset = list(entries(path / "journal.bin"))[entry].offset
    content = bytearray((path / "journal.bin").read_bytes())
    content[offset + 12] ^= 1
    (path / "journal.bin").write_bytes(content)
    with pytest.raises(RunError, match=f"the record at byte {offset} doesn't match .*recovery.mode=checkpoint"):
        live.start(resume=True)
    live.close()
    live.config = load_config(live.config, ["recovery.mode=checkpoint"])
    live.start(resume=True)
    summary = go_on(live)
    if entry > 16:
        assert any("is damaged after the checkpoint" in note for note in live.notes)
        assert (path / "journal.undone.bin").read_bytes().endswith(bytes(content[offset:]))
        check_whole(path, summary, restarts=1)
    else:
        assert any("can't be replayed" in note for note in live.notes)
        with pytest.raises(RunError, match="the journal has a gap"):
            replay(path)


def test_a_lost_journal_is_an_error_in_mode_exact_and_said_in_the_other(tmp_path):
    path = tmp_path / "run"
    live = LiveServer(path, configured())
    live.join_all(3)
    live.answers(12)
    live.save()
    live.answers(5)
    live.crash()
    (path / "journal.bin").unlink()
    with pytest.raises(RunError, match=r"journal.bin doesn't reach as far as the checkpoint of version 12; go on"):
        live.start(resume=True)
    live.close()
    live.config = load_config(live.config, ["recovery.mode=checkpoint"])
    live.start(resume=True)
    assert any("can't be replayed" in note for note in live.notes)
    live.join_all(3)
    live.answers(3)
    live.save()
    live.config = load_config(live.config, ["recovery.mode=exact"])
    live.crash()
    live.start(resume=True)  # the checkpoint has nothing of the jobs in flight
    assert any("this time the run goes on from it alone" in note for note in live.notes)
    go_on(live)


def test_a_checkpoint_that_gives_other_numbers_again_is_an_error(tmp_path, monkeypatch):
    """As on another machine, or with another torch: it ends with a sentence, and not on other bytes."""
    live = LiveServer(tmp_path / "run", configured())
    live.join_all(3)
    live.answers(12)
    live.crash()
    monkeypatch.setattr("asgd.run.compute.is_finite", lambda gradient: False)
    with pytest.raises(RunError, match="arrival 0: finite is True in the record and False again; go on from the check"):
        live.start(resume=True)
    live.close()


def test_a_trace_that_says_otherwise_than_the_journal_is_an_error(tmp_path):
    path = tmp_path / "run"
    live = LiveServer(path, configured())
    live.join_all(3)
    live.answers(12)
    live.directory.flush()
    live.crash()
    lines = (path / "trace.jsonl").read_text().splitlines(keepends=True)
    (path / "trace.jsonl").write_text("".join([*lines[:4], lines[4].replace('"samples":2', '"samples":3'), *lines[5:]]))
    with pytest.raises(RunError, match="line 5 of the trace"):
        live.start(resume=True)
    live.close()


def test_a_damaged_checkpoint_costs_only_time(tmp_path):
    path = tmp_path / "run"
    live = LiveServer(path, configured())
    live.join_all(3)
    live.answers(12)
    live.save()
    live.answers(12)
    live.save()
    live.answers(5)
    before = live.flat.parameters_sha256()
    live.crash()
    (_, newest) = list_checkpoints(path / "checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[:-3])
    live.start(resume=True)
    assert any("is skipped" in note for note in live.notes)
    assert live.flat.parameters_sha256() == before
    check_whole(path, go_on(live), restarts=1)


def test_a_run_that_had_ended_goes_on_with_a_larger_budget(tmp_path):
    path = tmp_path / "run"
    live = LiveServer(path, configured())
    live.join_all(3)
    live.finish()
    before = live.flat.parameters_sha256()
    live.start(resume=True)
    assert live.server.finish is not None, "the same budget: there is nothing to do"
    assert live.finish().parameters_sha256 == before
    live.config = load_config(live.config, ["budget.gradients=120"])
    (path / "config.toml").write_text(to_toml(live.config))
    live.start(resume=True)
    assert live.server.finish is None
    rows = check_whole(path, go_on(live), restarts=2)
    assert len(rows) > 90 and sum(row.action == "lost" for row in rows) == 2


def test_a_server_that_dies_before_it_has_recorded_what_was_lost(tmp_path, monkeypatch):
    """It had given the workers of before up: the next one doesn't wait for them, nor refuses those who come."""
    path = tmp_path / "run"
    live = LiveServer(path, configured())
    live.join_all(3)
    live.finish()
    live.config = load_config(live.config, ["budget.gradients=120"])
    (path / "config.toml").write_text(to_toml(live.config))
    with monkeypatch.context() as patch, pytest.raises(Crash):

        def die(server, kept):
            assert not kept
            raise Crash

        patch.setattr(Server, "resume", die)
        live.start(resume=True)
    live.crash()
    live.start(resume=True)
    rows = check_whole(path, go_on(live), restarts=2)
    assert len(rows) > 90 and sum(row.action == "lost" for row in rows) == 2


def snapshots_of(live):
    return {s.version: (s.samples, s.time_s, s.train_loss, s.read().tolist()) for s in live.server.evaluations._waiting}


@pytest.mark.parametrize("saves", [(), (12,), (12, 22)])
@pytest.mark.parametrize("evaluate", ["during", "after"])
@pytest.mark.parametrize("mode", ["checkpoint", "exact"])
def test_no_evaluation_is_missing_doubled_or_another_after_a_restart(tmp_path, mode, evaluate, saves):
    """Those that wait at the server's death wait again, with the same parameters and the same mean of the losses."""
    live = LiveServer(tmp_path / "run", configured(mode=mode, evaluation={"evaluate": evaluate, "every_versions": 10}))
    live.join_all(3)
    at_saves = {}
    for number in range(1, 26):
        live.answer()
        if number in saves:
            live.save()
            at_saves = snapshots_of(live)
    if mode == "checkpoint" and not saves:
        return live.close()
    evaluations, before = live.server.evaluations, snapshots_of(live)
    assert list(before) == [0, 10, 20]
    evaluations.next_for(b"evaluator", training=False)
    live.directory.append_metrics(evaluations.result(b"evaluator", 0, {"loss": 1.0}))
    live.directory.flush()
    evaluations.recorded(0)
    losses = evaluations._loss_sum
    live.crash()
    live.start(resume=True)
    expected = at_saves if mode == "checkpoint" else before
    after = snapshots_of(live)
    assert {version: kept[2:] for version, kept in after.items()} == {
        version: kept[2:] for version, kept in expected.items() if version > 0
    }
    if mode == "exact":
        assert live.server.evaluations._loss_sum == losses
    assert live.server.evaluations.latest.version == 0 and live.server.evaluations.num_missing == len(after)
    live.join_all(3)
    live.keep_house()
    while live.server.finish is None:
        live.answer()
    versions = [*after, *(version for version in snapshots_of(live) if version not in after)]
    if evaluate == "after":  # "during" skips what a slow evaluator doesn't get to
        assert versions == sorted({*range(10, live.state.version, 10), live.state.version})
    live.close()


def test_a_snapshot_that_is_gone_is_said(tmp_path):
    config = configured(evaluation={"evaluate": "after", "every_versions": 10})
    live = LiveServer(tmp_path / "run", config)
    live.join_all(3)
    live.answers(25)
    live.save()
    live.crash()
    (tmp_path / "run" / "snapshots" / "0000000010.f32").write_bytes(b"short")
    live.start(resume=True)
    assert "the snapshot of version 10 is gone: its evaluation is missing" in live.notes
    assert list(snapshots_of(live)) == [0, 20] and live.server.evaluations.num_missing == 3
    live.close()
