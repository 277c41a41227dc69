"""Tables of plain text: columns as wide as they need to be, nothing cut off or folded, the same in a pipe."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = ()) -> list[str]:
    """The rows as lines; columns in `left` stand on the left, others (numbers) on the right.

    Example:
        >>> aligned([["name", "n"], ["a", "10"]], left={0})
        ['name   n', 'a     10']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:{'<' if i in left else '>'}{widths[i]}}" for i, cell in enumerate(cells)).rstrip()
        for cells in rows
    ]
