"""A real cluster under one fault of each kind, and the command."""

from __future__ import annotations

import json

import pytest
from helpers.clusters import tiny_config
from helpers.command import run_command

from asgd.bench.chaos.counting import all_rows
from asgd.bench.chaos.running import chaos_config, run_chaos
from asgd.bench.chaos.script import UNTIL_LOST, Fault
from asgd.config import load_config, to_toml
from asgd.core.events import Arrival
from asgd.run.journal import appended

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ONE_OF_EACH = [
    Fault(0, "kill", "server", when="spawned"),
    Fault(20, "kill", "worker", 1),
    Fault(40, "delay", "worker", 2, 10),
    Fault(60, "cut", "worker", 3),
    Fault(80, "kill", "server"),
    Fault(80, "kill", "server", when="opened"),
    Fault(100, "stop", "server", length=8),
    Fault(120, "half_open", "worker", 0, UNTIL_LOST),
    Fault(120, "stop", "worker", 1, UNTIL_LOST),
    Fault(130, "kill", "evaluator"),
]


def chaos_run(tmp_path, script, mode="exact", method="asynchronous"):
    config = tiny_config(tmp_path)
    config["method"]["name"] = method
    config["cluster"] |= {"min_lease_s": 0.5, "max_lease_s": 0.5}
    config["cluster"]["speeds"] = {"profile": "equal", "seconds": 0.02}
    config["recovery"] = {"mode": mode}
    config["checkpoints"] = {"every_versions": 25}
    resolved = chaos_config(load_config(config), script, mode_is_set=True)
    return run_chaos(resolved, script, tmp_path / "run")


def test_a_run_survives_one_fault_of_each_kind(tmp_path):
    result = chaos_run(tmp_path, ONE_OF_EACH)
    assert result.passed, str(result.to_dict())
    assert (result.kills, result.server_kills, result.server_restarts, result.versions) == (5, 3, 3, 200)
    assert result.undone == 0 and result.exact and result.doubled == 0
    assert {row.reason for row in all_rows(tmp_path / "run") if row.action == "lost"} >= {"overdue"}
    assert all(row.goes_on is not None for row in result.faults)
    json.dumps(result.to_dict())


def test_what_a_restart_undoes_is_counted(tmp_path):
    script = [Fault(40, "kill", "server"), Fault(45, "kill", "worker", 0), Fault(90, "kill", "server")]
    result = chaos_run(tmp_path, script, mode="checkpoint")
    assert result.passed and result.versions == 200
    undone, _ = appended(tmp_path / "run" / "journal.undone.bin", 0)
    assert result.undone == sum(isinstance(entry.event, Arrival) for entry in undone) > 0


def test_the_command_survives_and_prints_one_object(tmp_path, monkeypatch, capsys):
    config = tiny_config(tmp_path)
    config["cluster"] |= {"min_lease_s": 0.5, "max_lease_s": 0.5, "speeds": {"profile": "equal", "seconds": 0.02}}
    (tmp_path / "tiny.toml").write_text(to_toml(load_config(config)).replace('mode = "checkpoint"', 'mode = "exact"'))
    status, out, _ = run_command(
        monkeypatch, capsys, "chaos", tmp_path / "tiny.toml", "--kills", 5, "--seed", 4, "--every", 12, "--run-dir",
        tmp_path / "run", "--out", tmp_path / "out.json", "--json",
    )  # fmt: skip
    result = json.loads(out)
    assert status == 0 and result["passed"] and (result["kills"], result["server_kills"]) == (5, 1)
    assert result == json.loads((tmp_path / "out.json").read_text())
