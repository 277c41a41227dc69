"""`bench core`: a small measurement of every method, the same history at every call, and bad arguments are named."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from asgd.bench import core
from asgd.cli.options import app
from asgd.core.actions import Assign, Cancel
from asgd.core.methods import METHODS
from asgd.errors import ConfigError


def test_a_small_measurement():
    lines: list[str] = []
    result = core.run(sizes=(2, 5), arrivals=50, rounds=2, progress=lines.append)
    assert [(row.method, row.num_workers) for row in result.rows] == [(m, n) for m in core.CHOSEN for n in (2, 5)]
    assert len(lines) == 2 * len(result.rows)
    for row in result.rows:
        assert len(row.rounds_us) == 2 and row.us_per_arrival > 0
        assert row.arrivals_per_s == pytest.approx(1e6 / row.us_per_arrival)
    assert [row.ratio for row in result.rows if row.num_workers == 2] == [1.0] * len(core.CHOSEN)
    assert json.loads(json.dumps(result.to_dict()))["sizes"] == [2, 5]
    out = io.StringIO()
    Console(width=100, file=out).print(result.table())
    assert all(name in out.getvalue() for name in core.CHOSEN)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_measured(method):
    assert core._measure(method, "scale", 6, 100) > 0


def test_workers_answer_in_order_and_cancelled_jobs_never():
    workers = core.Workers(2)  # worker 0 is fast, worker 1 slow
    workers.take([Assign(1, 0, 0), *(Assign(0, job, 0) for job in range(1, 8)), Cancel(0, 2)])
    assert [workers.next().job for _ in range(7)] == [1, 3, 4, 0, 5, 6, 7]


@pytest.mark.parametrize(
    "arguments",
    [{"methods": ()}, {"sizes": ()}, {"sizes": (0, 1)}, {"sizes": (5, 2)}, {"arrivals": 0}, {"rounds": 0}],
    ids=str,
)
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ConfigError, match="allowed are"):
        core.run(**arguments)


def test_the_command_prints_one_json_object(monkeypatch):
    small = core.run(sizes=(2,), arrivals=10, rounds=1)
    monkeypatch.setattr(core, "run", lambda: small)
    done = CliRunner().invoke(app, ["bench", "core", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["rows"][0]["method"] == "asynchronous"
