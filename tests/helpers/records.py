"""Small records of runs, written line by line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from asgd.core.trace import TraceRow
from asgd.run.formats import DelaySummary, Environment, ServerSummary, Summary
from asgd.run.records import RunDirectory


def row(arrival: int, **changes: Any) -> TraceRow:
    made = TraceRow(
        arrival=arrival,
        time_s=0.25 * arrival,
        worker=arrival % 2,
        job=arrival,
        read_version=max(0, arrival - 1),
        version=arrival,
        delay=min(1, arrival),
        concurrency=2,
        action="apply",
        steps=1,
        step_size=0.1,
        reason=None,
        loss=1.0 / (arrival + 1),
        samples=64,
        compute_s=0.01,
        wait_s=0.0,
    )
    return dataclasses.replace(made, **changes)


def summary(**changes: Any) -> Summary:
    values: dict[str, Any] = {
        "method": "asynchronous",
        "versions": 3,
        "arrivals": 3,
        "discarded": 0,
        "lost": 0,
        "samples": 192,
        "wall_s": 1.5,
        "concurrency": 2,
        "delay": DelaySummary(mean_applied=2 / 3, average=0.5, max=1, per_worker={0: 0.5, 1: 1.0}),
        "outstanding": [0, 1],
        "server": ServerSummary(busy_fraction=0.25, bytes_in=1000, bytes_out=2000),
        "test_accuracy": 0.5,
        "parameters_sha256": "ab" * 32,
        "finished": True,
        "stopped_because": "the budget of 3 versions is used up",
        "seed": 0,
        "environment": Environment(python="3.11", torch="2.15", platform="Linux", cores=2),
    }
    return Summary(**{**values, **changes})


def written(path: Path, num_rows: int) -> None:
    with RunDirectory.create(path, "seed = 0\n") as run:
        for arrival in range(num_rows):
            run.append_trace(row(arrival))
