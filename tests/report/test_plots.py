"""Plots: both files are written, the same data give the same bytes, and what is in them."""

from __future__ import annotations

import re

import pytest

from asgd.report.layout import fixed_axes, legend_below, legend_rows, plain
from asgd.report.plots import COLOURS, MARKERS, MOST_VECTOR_DOTS, HeatMap, Line, Mark, Plot, draw, render

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


@pytest.mark.slow
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


def test_a_bar_that_is_a_bound_is_hatched_and_has_no_interval(tmp_path):
    def svg(hatched):
        bars = Line("b", ["x", "z"], [1.0, 2.0], [0.9, 2.0], [1.1, 2.0], style="bars", hatched=hatched)
        return draw(Plot("p", "t", "", "y", [bars]), tmp_path)[1].read_text()

    plain_svg, one = svg(None), svg([False, True])
    assert (
        "<pattern" not in plain_svg
        and one.count("<pattern") == 1
        and len(one.split("<use")) < len(plain_svg.split("<use"))
    )


def test_colours_and_markers_tell_series_apart():
    assert len(set(COLOURS)) == len(COLOURS) == len(set(MARKERS)) == len(MARKERS)


def test_intervals_must_have_two_ends_for_each_point(tmp_path):
    with pytest.raises(ValueError, match="zip"):
        draw(Plot("bad", "", "", "", [Line("one", [1, 2], [1.0, 2.0], [0.5], [1.5, 2.5])]), tmp_path)


def test_a_picture_within_a_page_takes_the_pages_colours_and_its_own_ids():
    first, second = render(LINES), render(BARS)
    assert first.startswith("<svg") and "<!DOCTYPE" not in first and "<style" not in first
    assert "var(--ink)" in first and "#000000" not in first and "#1f2328" not in first
    ids = [set(re.findall(r' id="([^"]*)"', svg)) for svg in (first, second)]
    assert ids[0] and ids[1] and not ids[0] & ids[1]
    for svg, known in zip((first, second), ids, strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]*)', svg)) <= known
    assert ">measured<" in first, "text stays text"


def test_a_text_that_looks_like_an_attribute_stays_as_it_is():
    plot = Plot("p", 'a id="b" #000000 url(#c)', "x", "y", [Line("one", [0, 1], [0.0, 1.0])], compact=True)
    assert 'a id="b" #000000 url(#c)' in render(plot)


@pytest.mark.parametrize(
    ("text", "label"),
    [("a$b$", r"a\$b\$"), ("_a", " _a"), ("a\nb\x07", "a?b?"), ("x" * 100, "x" * 22 + "…" + "x" * 22), ("τ", "τ")],
)
def test_any_text_can_be_a_label(text, label):
    assert plain(text) == label


@pytest.mark.parametrize(
    ("values", "label"), [([0.0, 3e-6], "y (×10⁻⁶)"), ([0.0, 2e6], "y (×10⁶)"), ([0.0, 999.0], "y"), ([0.0, 0.0], "y")]
)
def test_very_small_and_very_large_numbers_have_their_power_of_ten_in_the_label(values, label, tmp_path):
    plot = Plot("p", "", "x", "y", [Line("one", [0.0, 1.0], values, style="line")], compact=True)
    assert f"<!-- {label} -->" in draw(plot, tmp_path)[1].read_text()


def test_many_dots_are_pixels_within_the_svg(tmp_path):
    def size(count):
        line = Line("dots", list(range(count)), [0.0] * count, style="dots")
        return len(render(Plot("p", "", "x", "y", [line], compact=True)))

    assert size(100_000) < 60_000 < 100 * MOST_VECTOR_DOTS


def test_a_compact_plot_shows_bands_marks_and_histograms(tmp_path):
    lines = [
        Line("band", [0, 1, 2], [1.0, 2.0, 3.0], [0.0, 1.0, 2.0], [2.0, 3.0, 4.0], "band"),
        Line("stack", [0, 1, 2], [3.0, 4.0], [1.0, 1.0], style="filled"),
        Line("outline", [0, 1, 2], [3.0, 4.0], style="outline"),
    ]
    marks = [Mark("here", 1.0), Mark("level", 2.0, "y", colour=1)]
    svg = draw(Plot("p", "all", "x", "y", lines, marks=marks, compact=True, from_zero=True), tmp_path)[1].read_text()
    assert {"band", "stack", "outline", "here", "level"} <= set(re.findall(r"<!-- (.*?) -->", svg))


def test_a_legend_below_fits_its_room():
    labels = [
        ["used", "concurrency τ_C = 100,000", "average 74,999.44", "largest used or in flight 172,358"],
        ["a" * 60] * 3,
        ["ab"] * 9,
    ]
    for names in labels:
        names = [plain(f"{i} {name}") for i, name in enumerate(names)]
        figure, axes = fixed_axes(4.8, 2.3, left=0.7, right=0.2, legend_rows=legend_rows(names, 4.8))
        for name in names:
            axes.plot([0, 1], [0, 1], label=name)
        axes.set_xlabel("x")
        legend_below(axes, names)
        figure.draw_without_rendering()
        box, under = figure.legends[0].get_window_extent(), axes.xaxis.label.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= under.y0
