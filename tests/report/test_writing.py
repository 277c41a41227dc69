"""The page: well-formed, of one piece, escaped; for every run that there can be; and its figures as files."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers.report_runs import ended_run, lost_row, make_run, metrics_row, summary_of, trace_row

import asgd
import asgd.run.formats
from asgd.errors import ConfigError, RunError
from asgd.run.result import Run

pytestmark = pytest.mark.slow  # they draw whole reports

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Reads a page and keeps what tests ask for: all ids, references, texts; fails on tags that don't match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.pictures: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self._note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._note(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    def _note(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.references += [given[name] for name in ("src", "href", "xlink:href", "data", "action") if name in given]
        self.references += re.findall(r"url\(([^)]*)\)", given.get("style", "") or "")
        if tag == "svg":
            assert given["role"] == "img"
            self.pictures.append(given["aria-label"])


def page_of(path: Path) -> Page:
    text = path.read_text()
    page = Page(text)
    assert not [ref for ref in page.references if not ref.startswith(("#", "data:image/png;base64,"))]
    assert "@import" not in text and not re.search(r"url\(\s*['\"]?http", text)
    assert len(page.ids) == len(set(page.ids)), "ids come twice"
    known = {f"#{each}" for each in page.ids}
    assert {ref for ref in page.references if ref.startswith("#")} <= known
    assert all(label.strip() for label in page.pictures)
    return page


def words(page: Page) -> str:
    return " ".join(" ".join(page.texts).split())


@pytest.mark.slow
def test_a_single_run_has_its_page_and_its_figures_in_its_directory(tmp_path):
    run = ended_run(tmp_path / "one")
    report = asgd.write_report(run)
    for path in report.figures:
        assert path.suffix == ".png" or ElementTree.parse(path).getroot().tag.endswith("svg")
    assert report.page == run / "report.html"
    page = page_of(report.page)
    names = {path.name for path in report.figures}
    wanted = [f"{what}_over_{axis}" for what in ("test_loss", "test_accuracy", "train_loss")
              for axis in ("seconds", "samples", "versions")]  # fmt: skip
    wanted += ["delay_histogram", "delay_over_time", "step_size_over_time", "timeline", "worker_shares",
               "worker_steps", "server_time", "job_times"]  # fmt: skip
    assert names == {f"{name}.{ending}" for name in wanted for ending in ("png", "svg")}
    assert {path.name for path in (run / "report").iterdir()} == names
    assert len(page.pictures) == len(wanted)
    assert "In numbers" in words(page)


def test_a_page_can_go_elsewhere_and_without_files(tmp_path):
    run = Run(ended_run(tmp_path / "one"))
    report = asgd.write_report(run, tmp_path / "new" / "page.html", figures=False)
    assert report.figures == [] and not (tmp_path / "new" / "page").exists() and not (run.path / "report").exists()
    page_of(tmp_path / "new" / "page.html")


def test_the_same_record_gives_the_same_page(tmp_path):
    run = ended_run(tmp_path / "one")
    first = asgd.write_report(run, tmp_path / "a.html", figures=False).page.read_text()
    assert asgd.write_report(run, tmp_path / "b.html", figures=False).page.read_text() == first


@pytest.mark.slow
def test_several_runs_are_laid_over_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [ended_run(tmp_path / name, count) for name, count in (("slow", 20), ("fast", 40), ("old", 30))]
    report = asgd.write_report(runs)
    assert report.page == Path("report.html") and (tmp_path / "report").is_dir()
    page = page_of(report.page)
    text = words(page)
    assert all(f"Timeline of the workers: {name}" in text for name in ("slow", "fast", "old"))
    assert "time to test accuracy" in text and "Comparison" in text
    overlaid = next(label for label in page.pictures if label.startswith("Test loss over seconds"))
    assert all(name in overlaid for name in ("slow", "fast", "old"))


EVIL = '<script>alert(1)</script> $x^$ & "q" \' id="a" {{ 7*7 }}'


@pytest.mark.slow
def test_whatever_a_run_is_called_or_says_is_text(tmp_path):
    evil = EVIL.replace("/", "\u2215")
    rows = [trace_row(0), trace_row(1, action="discard", steps=0, step_size=None, reason=EVIL)]
    summary = summary_of(rows, finished=False, stopped_because=EVIL)
    function = 'task.function="/<b>x</b>/y.py:f"'
    paths = [make_run(tmp_path / f"{evil}{i}", rows, [metrics_row(0)], summary, [function]) for i in range(2)]
    report = asgd.write_report(paths, tmp_path / "page.html")
    page = page_of(report.page)
    assert page.tags.count("script") == 1 and "b" not in page.tags and "49" not in page.texts
    text = words(page)
    assert "<b>x</b>/y.py:f" in text and EVIL in text and evil in text
    labels = "".join(path.read_text() for path in report.figures if path.suffix == ".svg")
    assert "<script>" not in labels and "&lt;script&gt;" in labels


@pytest.mark.slow
def test_names_that_no_file_can_hold_are_shown_as_far_as_they_can_be(tmp_path):
    runs = [ended_run(tmp_path / "a\udcff\x07\n"), ended_run(tmp_path / "_hidden"), ended_run(tmp_path / ("x" * 200))]
    runs.append(ended_run(tmp_path / "運行"))
    report = asgd.write_report(runs, tmp_path / "page.html")
    page = page_of(report.page)
    assert "a?" in words(page) and "運行" in words(page) and "_hidden" in words(page)


def nothing_yet(path):
    return make_run(path)


def no_gradient(path):
    return make_run(path, [], [], summary_of([], finished=False, stopped_because="interrupted by SIGINT"))


def going_on(path):
    return make_run(path, [trace_row(i) for i in range(5)], [metrics_row(0)])


def only_lost(path):
    rows = [lost_row(0), lost_row(1)]
    return make_run(path, rows, [], summary_of(rows))


def some_lost(path):
    rows = [trace_row(i) for i in range(5)] + [lost_row(5)]
    return make_run(path, rows, [], summary_of(rows, restarts=1))


def restarted(path):
    rows = [trace_row(i) for i in range(5)] + [trace_row(i, job=i + 2**32) for i in range(5, 9)]
    return make_run(path, rows, [metrics_row(4)], summary_of(rows, evaluations_missing=2))


def one_worker(path):
    rows = [trace_row(i, worker=0, delay=0, read_version=i, concurrency=1) for i in range(6)]
    return make_run(path, rows, [metrics_row(5)], summary_of(rows), ["cluster.num_workers=1"])


def one_arrival(path):
    return make_run(path, [trace_row(0)], [metrics_row(0)], summary_of([trace_row(0)]))


def not_finite(path):
    rows = [trace_row(i, loss=None) for i in range(4)]
    return make_run(path, rows, [metrics_row(1, test_loss=None, test_accuracy=None)], summary_of(rows))


def all_discarded(path):
    rows = [trace_row(i, action="discard", steps=0, step_size=None, reason="delay 9, R = 3") for i in range(4)]
    return make_run(path, rows, [], summary_of(rows))


def slots(path):
    step = {"action": "accumulate", "steps": 0, "step_size": None}
    rows = [trace_row(i, **({} if i % 2 else step) | {"action": "accumulate"}) for i in range(6)]
    return make_run(path, rows, [], None)


def never_evaluated(path):
    rows = [trace_row(i) for i in range(4)]
    return make_run(path, rows, [], summary_of(rows), ["evaluation.evaluate=never"])


def old_record(path):
    rows = [trace_row(i, assigned_s=None, queue_s=0.0, started_s=None) for i in range(4)]
    old = {"busy_fraction": 0.1, "bytes_in": 1, "bytes_out": 1}
    return make_run(path, rows, [metrics_row(4)], summary_of(rows, server=asgd.run.formats.ServerSummary(**old)))


def virtual(path):
    rows = [trace_row(i, wait_s=0.15, started_s=0.25 * i + 0.05) for i in range(4)]
    old = {"busy_fraction": 0.0, "bytes_in": 0, "bytes_out": 0}
    return make_run(path, rows, [metrics_row(4)], summary_of(rows, server=asgd.run.formats.ServerSummary(**old)))


def different_data(path):
    return ended_run(path, overrides=["task.partition=dirichlet", "task.partition_options.alpha=0.1"])


def negative_transfers(path):
    rows = [trace_row(i, started_s=0.25 * i - 0.01) for i in range(4)]
    return make_run(path, rows, [], summary_of(rows))


def zero_steps(path):
    rows = [trace_row(i, step_size=0.0) for i in range(4)]
    return make_run(path, rows, [], None)


# What the page must say of each.
RUNS = {
    nothing_yet: ["has not ended", "No evaluation is recorded (yet).", "there are no jobs to show"],
    no_gradient: ["interrupted by SIGINT", "No gradient was applied", "No gradient came"],
    going_on: ["has not ended", "which holds the server's times"],
    only_lost: ["No gradient was applied", "worker 1 left (2)", "No gradient was used"],
    some_lost: ["worker 1 left (1)", "started again: 1"],
    restarted: ["The server was started 2 times", "Evaluations that are missing: 2"],
    one_worker: ["Share of each worker"],
    one_arrival: ["All 1 gradients"],
    not_finite: ["4 gradients came with a training loss that isn't finite", "No evaluation gave a finite test loss"],
    all_discarded: ["No gradient was applied", "delay 9, R = 3 (4)", "No update was made"],
    slots: ["only the summary says their weights"],
    never_evaluated: ['evaluation.evaluate is "never"'],
    old_record: ["doesn't say when jobs were given and begun", "as those of older runs"],
    virtual: ["those of virtual time", "In virtual time the server takes none"],
    different_data: ["biased toward the data of fast workers", "The workers have different data"],
    negative_transfers: ["Where the time of a job went"],
    zero_steps: ["Step size over time"],
}


@pytest.mark.slow  # all of them together: each draws seventeen figures
@pytest.mark.parametrize("make", RUNS, ids=lambda make: make.__name__)
def test_every_run_has_a_page(make, tmp_path):
    report = asgd.write_report(make(tmp_path / "run"), figures=False)
    text = words(page_of(report.page))
    for sentence in RUNS[make]:
        assert sentence in text
    assert "nan" not in text.lower().split()


@pytest.mark.slow
def test_all_of_them_together_have_a_page(tmp_path):
    runs = [make(tmp_path / make.__name__) for make in RUNS]
    report = asgd.write_report(runs, tmp_path / "all.html", figures=False)
    text = words(page_of(report.page))
    assert "Not drawn, to keep the page short" in text
    assert "Not recorded: " in text and "Without a value: " in text


def test_what_cannot_be_reported_is_refused(tmp_path):
    run = ended_run(tmp_path / "one")
    with pytest.raises(ConfigError, match="at least one run"):
        asgd.write_report([])
    with pytest.raises(ConfigError, match="is given 2 times"):
        asgd.write_report([run, tmp_path / "." / "one"])
    with pytest.raises(ConfigError, match=r"ends in \.html"):
        asgd.write_report(run, tmp_path / "page.txt")
    with pytest.raises(RunError, match="is not the directory of a run"):
        asgd.write_report(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="can't be written"):
        asgd.write_report(run, tmp_path / "file" / "page.html")
    (run / "trace.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match=r"Line 1 of .* is damaged"):
        asgd.write_report(run)


def test_runs_of_one_name_are_told_apart(tmp_path):
    runs = [ended_run(tmp_path / folder / "run") for folder in ("a", "b")]
    report = asgd.write_report(runs, tmp_path / "page.html", figures=False)
    assert [each.run for each in report.comparison.runs] == ["a/run", "b/run"]
