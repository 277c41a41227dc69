"""The report's page: one HTML file with everything in it, which opens from a disk without a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from asgd.config import to_toml
from asgd.report.comparison import Comparison, table
from asgd.report.exhibits import Exhibit
from asgd.report.plots import render
from asgd.report.reading import Record


def make_page(
    records: Sequence[Record], comparison: Comparison, sections: Iterable[tuple[str, Sequence[Exhibit]]]
) -> str:
    """The page as text.

    Arguments: records: the runs; comparison: their numbers; sections: (heading, what is shown below it).
    """
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    def shown(exhibit: Exhibit) -> dict[str, Any]:
        svg = "" if exhibit.picture is None else _labelled(render(exhibit.picture), Markup.escape(exhibit.words))
        return {
            "title": exhibit.title, "caption": exhibit.caption, "is_wide": exhibit.is_wide, "svg": Markup(svg),
        }  # fmt: skip

    environment = Environment(
        loader=PackageLoader("asgd.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    labels = [record.label for record in records]
    return environment.get_template("page.html.j2").render(
        title=f"Report of {labels[0]}" if len(labels) == 1 else f"Report of {len(labels)} runs",
        runs=[
            {
                "label": record.label, "where": str(record.path), "warnings": record.warnings, "notes": record.notes,
                "toml": to_toml(record.config),
            }
            for record in records
        ],
        rows=table(comparison),
        sections=[(heading, [shown(exhibit) for exhibit in exhibits]) for heading, exhibits in sections],
    )  # fmt: skip


def _labelled(svg: str, words: str) -> str:
    """The picture with words for who can't see it, which a browser also shows where it is pointed at."""
    return svg.replace("<svg", f'<svg role="img" aria-label="{words}"', 1)
