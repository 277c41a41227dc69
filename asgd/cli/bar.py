"""A bar for what is done in one go, on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import Progress


@contextlib.contextmanager
def fraction_bar(console: Console, doing: str, *, shown: bool = True) -> Iterator[Callable[[float], None]]:
    """What takes the part done, 0 to 1, and draws it; nothing is drawn where the console is no terminal."""
    with Progress(console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task(doing, total=1.0)
        yield lambda fraction: bar.update(task, completed=fraction)
