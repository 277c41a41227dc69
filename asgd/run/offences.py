"""Clients whose messages are refused: counted, and after too many of them ignored and cut off.

A message is refused when it can't be decoded, has a payload that wasn't agreed, comes from somebody who hasn't said
hello, isn't for that role to send, answers a job that isn't waited for, or asks for more than its turn. One may be an
accident of the network or of a restart; an answer that is taken makes up for one that was refused.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

_REMEMBERED: Final = 4096  # clients; of more, those that offended longest ago are forgotten


class Offences:
    """Counts refusals of each client, in bounded memory.

    Arguments: limit: refusals after which a client is ignored, >= 1.

    >>> offences = Offences(limit=2)
    >>> offences.refused(b"peer"), offences.refused(b"peer"), offences.ignores(b"peer")
    (False, True, True)
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.num_refused = 0
        self.num_ignored_clients = 0
        self.num_turned_away = 0  # clients that don't fit
        self._counts: OrderedDict[bytes, int] = OrderedDict()
        self._turns_s: OrderedDict[bytes, float] = OrderedDict()

    def refused(self, peer: bytes) -> bool:
        """Count one; whether it was the last that is answered."""
        self.num_refused += 1
        count = self._counts.get(peer, 0) + 1
        self._counts[peer] = count
        self._counts.move_to_end(peer)
        if len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)
        if count == self.limit:
            self.num_ignored_clients += 1
        return count >= self.limit

    def made_up(self, peer: bytes) -> None:
        """An answer of a client was taken."""
        count = self._counts.get(peer)
        if count is not None and count < self.limit:
            if count > 1:
                self._counts[peer] = count - 1
            else:
                del self._counts[peer]

    def is_hasty(self, peer: bytes, now_s: float, apart_s: float) -> bool:
        """Whether a client repeats something sooner than `apart_s` after the last time that it did such a thing."""
        last_s = self._turns_s.get(peer)
        self._turns_s[peer] = now_s
        self._turns_s.move_to_end(peer)
        if len(self._turns_s) > _REMEMBERED:
            self._turns_s.popitem(last=False)
        return last_s is not None and now_s - last_s < apart_s

    def ignores(self, peer: bytes) -> bool:
        """Whether a client has had its chances."""
        return self._counts.get(peer, 0) >= self.limit
