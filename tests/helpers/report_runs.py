"""Runs for reports, written by hand: any trace, any metrics, with a summary that says the same or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asgd.config import load_config, to_toml
from asgd.core.trace import TraceRow
from asgd.run.formats import DelaySummary, Environment, MetricsRow, ServerSummary, Summary, WorkerSummary
from asgd.run.records import RunDirectory


def trace_row(arrival: int, **changes: Any) -> TraceRow:
    """One of two workers' applied gradients, half a second each, with the times of its job."""
    values: dict[str, Any] = {
        "arrival": arrival, "time_s": 0.5 + 0.25 * arrival, "worker": arrival % 2, "job": arrival,
        "read_version": max(0, arrival - 1), "version": arrival, "delay": min(arrival, 1), "concurrency": 2,
        "action": "apply", "steps": 1, "step_size": 0.1, "reason": None, "loss": 2.0 / (1 + arrival), "samples": 32,
        "compute_s": 0.3, "wait_s": 0.1, "assigned_s": 0.25 * arrival, "queue_s": 0.01,
        "started_s": 0.25 * arrival + 0.05,
    }  # fmt: skip
    return TraceRow(**(values | changes))


def lost_row(arrival: int, **changes: Any) -> TraceRow:
    nothing = {"action": "lost", "steps": 0, "step_size": None, "loss": None, "samples": 0, "compute_s": 0.0}
    unknown = {"wait_s": 0.0, "queue_s": 0.0, "started_s": None, "reason": "worker 1 left"}
    return trace_row(arrival, **(nothing | unknown | changes))


def metrics_row(version: int, **changes: Any) -> MetricsRow:
    values: dict[str, Any] = {
        "time_s": 0.25 * version, "version": version, "samples_seen": 32 * version, "test_loss": 2.0 / (1 + version),
        "test_accuracy": min(0.9, 0.1 + 0.1 * version),
    }  # fmt: skip
    return MetricsRow(**(values | changes))


def summary_of(rows: Sequence[TraceRow], **changes: Any) -> Summary:
    """A summary that says what the rows do."""
    used = [row for row in rows if row.action in ("apply", "accumulate")]
    lost = sum(row.action == "lost" for row in rows)
    delays = [row.delay for row in used]
    steps = sum(row.step_size or 0.0 for row in rows) or 1.0
    workers = {
        worker: WorkerSummary(
            used=sum(row.worker == worker for row in used), discarded=0, lost=0,
            share=sum(row.worker == worker for row in used) / max(1, len(used)),
            weight=sum(row.step_size or 0.0 for row in rows if row.worker == worker) / steps,
        )
        for worker in sorted({row.worker for row in rows})
    }  # fmt: skip
    wall_s = rows[-1].time_s if rows else 0.0
    values: dict[str, Any] = {
        "method": "asynchronous", "versions": sum(row.steps for row in rows), "arrivals": len(rows) - lost,
        "discarded": len(rows) - lost - len(used), "lost": lost, "samples": sum(row.samples for row in rows),
        "wall_s": wall_s, "concurrency": max((row.concurrency for row in rows), default=0),
        "delay": DelaySummary(
            mean_applied=sum(delays) / max(1, len(delays)), average=1.5, max=max(delays, default=0), per_worker={}
        ),
        "outstanding": [], "test_accuracy": 0.9, "parameters_sha256": "0" * 64, "finished": True,
        "server": ServerSummary(
            busy_fraction=0.1, bytes_in=1000, bytes_out=1000, receive_s=0.1 * wall_s, decide_s=0.05 * wall_s,
            apply_s=0.1 * wall_s, send_s=0.1 * wall_s, record_s=0.05 * wall_s, idle_s=0.5 * wall_s,
        ),
        "stopped_because": "budget used up", "seed": 0, "used": len(used), "workers": workers,
        "environment": Environment(python="3", torch="2", platform="Linux", cores=2),
    }  # fmt: skip
    return Summary(**(values | changes))


def make_run(
    path: Path,
    rows: Sequence[TraceRow] = (),
    metrics: Sequence[MetricsRow] = (),
    summary: Summary | None = None,
    overrides: Sequence[str] = (),
) -> Path:
    """Write a run's directory; one without a summary hasn't ended."""
    config = load_config({"budget": {"versions": 100}, "cluster": {"num_workers": 2}}, overrides)
    with RunDirectory.create(path, to_toml(config)) as directory:
        for row in rows:
            directory.append_trace(row)
        for each in metrics:
            directory.append_metrics(each)
        if summary is not None:
            directory.write_summary(summary)
    return path


def ended_run(path: Path, count: int = 40, overrides: Sequence[str] = (), **changes: Any) -> Path:
    """A run of `count` gradients with five evaluations that has ended."""
    rows = [trace_row(i) for i in range(count)]
    metrics = [metrics_row(count * i // 4) for i in range(5)]
    return make_run(path, rows, metrics, summary_of(rows, **changes), overrides)
