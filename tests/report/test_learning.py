"""The curves of loss and accuracy are the evaluations and the losses of the trace."""

from __future__ import annotations

import pytest
from helpers.report_runs import ended_run, make_run, metrics_row, summary_of, trace_row

from asgd.report.learning import learning_exhibits
from asgd.report.reading import read_records


def test_the_evaluations_are_drawn_over_seconds_samples_and_versions(tmp_path):
    [record] = read_records([ended_run(tmp_path / "run", 40)])
    plots = {exhibit.picture.name: exhibit.picture for exhibit in learning_exhibits([record])}
    rows = record.metrics
    for axis, places in (
        ("seconds", [row.time_s for row in rows]), ("samples", [row.samples_seen for row in rows]),
        ("versions", [row.version for row in rows]),
    ):  # fmt: skip
        [line] = plots[f"test_loss_over_{axis}"].lines
        assert line.x == places and line.y == [row.test_loss for row in rows]
        [line] = plots[f"test_accuracy_over_{axis}"].lines
        assert line.x == places and line.y == pytest.approx([100 * row.test_accuracy for row in rows])
    [line] = plots["train_loss_over_samples"].lines
    assert line.x == [32.0 * (i + 1) for i in range(40)] and line.y == [2.0 / (1 + i) for i in range(40)]


def test_a_loss_that_falls_far_has_a_logarithmic_scale(tmp_path):
    rows = [trace_row(i, loss=10.0**-i) for i in range(4)]
    metrics = [metrics_row(i, test_loss=2.0 - 0.1 * i) for i in range(4)]
    [record] = read_records([make_run(tmp_path / "run", rows, metrics, summary_of(rows))])
    scales = {exhibit.picture.name: exhibit.picture.log_y for exhibit in learning_exhibits([record])}
    assert scales["train_loss_over_seconds"] and not scales["test_loss_over_seconds"]
    assert "The scale is logarithmic." in learning_exhibits([record])[-1].caption


def test_a_run_without_a_value_is_named_and_the_others_drawn(tmp_path):
    rows = [trace_row(0)]
    paths = [ended_run(tmp_path / "full"), make_run(tmp_path / "empty", rows, [], summary_of(rows))]
    exhibit = learning_exhibits(read_records(paths))[0]
    assert [line.label for line in exhibit.picture.lines] == ["full"] and exhibit.caption == "Without a value: empty."
