"""Signals that become requests to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.clusters import tiny_config

from asgd.config import load_config, to_toml
from asgd.run.signals import stopping_by_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_a_request_while_it_lasts(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with stopping_by_signals() as stops:
            signal.raise_signal(number)
            assert stops.take() == f"interrupted by {number.name}" and stops.take() is None
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_what_nohup_has_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping_by_signals() as stops:
            signal.raise_signal(signal.SIGHUP)
            assert not stops.asked
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.cluster
@pytest.mark.slow
def test_a_closed_terminal_stops_a_cluster_in_good_order(tmp_path: Path) -> None:
    """The hang-up reaches every process of the session, and only the supervisor acts on it."""
    config = tiny_config(tmp_path) | {"budget": {"versions": 100_000}, "records": {"report": False}}
    config["cluster"]["speeds"] = {"profile": "equal", "seconds": 0.02}
    (tmp_path / "c.toml").write_text(to_toml(load_config(config)))
    command = [sys.executable, "-m", "asgd", "train", str(tmp_path / "c.toml"), "--run-dir", str(tmp_path / "run")]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stdout is not None
            seen = ""
            while "  loss 0." not in seen:
                line = process.stdout.readline()
                assert line, seen
                seen += line
            os.killpg(process.pid, signal.SIGHUP)
            out, _ = process.communicate(timeout=40)
        finally:
            process.kill()
    assert process.returncode == 130, out
    summary = json.loads((tmp_path / "run" / "summary.json").read_bytes())
    assert summary["stopped_because"] == "interrupted by SIGHUP" and summary["evaluations_missing"] == 0
    assert summary["restarts"] == summary["server_restarts"] == summary["lost"] == 0
