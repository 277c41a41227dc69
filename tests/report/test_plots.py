"""Plots: both files are written, the same data give the same bytes, and what is in them."""

from __future__ import annotations

import re

import pytest

from asgd.report.plots import COLOURS, MARKERS, HeatMap, Line, Plot, draw

LINES = Plot(
    "lines", "Two lines & a prediction", "workers n", "seconds",
    [
        Line("measured", [1, 2, 4], [3.0, 2.0, 1.5], [2.5, 1.9, 1.4], [3.5, 2.2, 1.7]),
        Line("predicted", [1, 2, 4], [3.0, 1.5, 0.75], style="predicted"),
        Line("points", [1, 2, 4], [1.0, 1.0, 1.0], style="points"),
    ],
    log_x=True, log_y=True,
)  # fmt: skip
BARS = Plot(
    "bars", "Bars", "", "times faster",
    [
        Line("measured", ["equal", "linear"], [0.8, 3.0], [0.7, 2.5], [0.9, 3.5], style="bars"),
        Line("predicted", ["equal", "linear"], [1.0, 3.2], style="bars"),
    ],
)  # fmt: skip
MANY = Plot("many", "Many", "x", "y", [Line(f"series {i}", [0, 1], [i, i + 1.0]) for i in range(7)])
HEAT = HeatMap(
    "heat", "Who wins", "speeds", ["one", "two"], ["a", "b", "c"], [[1.0, 2.5, 4.0], [3.0, 1.0, float("inf")]]
)
PLOTS = {plot.name: plot for plot in (LINES, BARS, MANY, HEAT)}


@pytest.mark.parametrize("name", PLOTS)
def test_both_files_are_written_and_the_same_data_give_the_same_bytes(name, tmp_path):
    first, second = draw(PLOTS[name], tmp_path / "new" / "one"), draw(PLOTS[name], tmp_path / "two")
    assert [path.name for path in first] == [f"{name}.png", f"{name}.svg"]
    assert first[0].read_bytes().startswith(b"\x89PNG\r\n")
    assert first[1].read_text().lstrip().startswith("<?xml") and "<svg" in first[1].read_text()
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_other_data_give_another_picture(tmp_path):
    png, svg = draw(LINES, tmp_path / "one")
    changed = Line("measured", [1, 2, 4], [3.0, 2.0, 1.6], [2.5, 1.9, 1.4], [3.5, 2.2, 1.7])
    other_png, other_svg = draw(Plot("lines", LINES.title, "workers n", "seconds", [changed, *LINES.lines[1:]],
                                     log_x=True, log_y=True), tmp_path / "two")  # fmt: skip
    assert png.read_bytes() != other_png.read_bytes() and svg.read_text() != other_svg.read_text()


def test_each_series_has_its_colour_and_what_is_said_is_there(tmp_path):
    svg = draw(LINES, tmp_path)[1].read_text()
    comments = set(re.findall(r"<!-- (.*?) -->", svg))
    assert {"measured", "predicted", "points", "workers n", "seconds"} <= comments
    assert all(colour.lower() in svg.lower() for colour in COLOURS[:3])
    assert "stroke-dasharray" in svg


def test_bars_stand_at_named_places(tmp_path):
    comments = set(re.findall(r"<!-- (.*?) -->", draw(BARS, tmp_path)[1].read_text()))
    assert {"equal", "linear", "measured", "predicted"} <= comments


def test_colours_and_markers_tell_series_apart():
    assert len(set(COLOURS)) == len(COLOURS) == len(set(MARKERS)) == len(MARKERS)


def test_intervals_must_have_two_ends_for_each_point(tmp_path):
    with pytest.raises(ValueError, match="zip"):
        draw(Plot("bad", "", "", "", [Line("one", [1, 2], [1.0, 2.0], [0.5], [1.5, 2.5])]), tmp_path)
