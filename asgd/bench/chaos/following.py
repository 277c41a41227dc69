"""Follows a run as it goes on: the events of its journal, into a core of our own.

The core decides what the server's does, so it knows the run's version, its jobs and its workers to the event; nothing
is guessed from a status. When a server goes back (recovery.mode = checkpoint) it is followed again from the start.
"""

from __future__ import annotations

from pathlib import Path

from asgd.config import Config
from asgd.core.state import ServerState
from asgd.run.build import make_state
from asgd.run.journal import MAGIC, Entry, Opened, appended
from asgd.run.recompute import reopened
from asgd.run.records import JOURNAL


class Follower:
    """A core that has handled what the journal of a run has so far.

    Arguments: config: the run's; path: its directory.
    Attributes: state: the core; incarnation: of the last server that took up the run, -1 for none.
    """

    def __init__(self, config: Config, path: Path) -> None:
        self._config, self._journal, self.incarnation = config, path / JOURNAL, -1
        self._begin()

    def _begin(self) -> None:
        self.state: ServerState = make_state(self._config)
        self._position = len(MAGIC)

    def read(self) -> list[Entry]:
        """Take in what is new, and return it."""
        known, again = self.incarnation, self._was_cut()
        if again:
            self._begin()
        entries, self._position = appended(self._journal, self._position)
        first_news = len(entries) if again else 0
        for number, entry in enumerate(entries):
            if isinstance(entry.event, Opened):
                self.incarnation = entry.event.incarnation
                self.state = reopened(self._config, self.state, entry.event)
                if self.incarnation > known:
                    first_news = min(first_news, number)
            else:
                self.state.handle(entry.event)
        self.incarnation = max(known, self.incarnation)
        return entries[first_news:]

    def _was_cut(self) -> bool:
        """Whether the journal no longer goes on where we stopped: a server has moved its end aside."""
        size = self._journal.stat().st_size if self._journal.exists() else 0
        if size <= self._position:
            return size < self._position
        return appended(self._journal, self._position)[1] == self._position
