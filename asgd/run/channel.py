"""The line between the server process and whoever supervises it: JSON objects, one a line, over a socket pair.

From the supervisor: {"died": worker, "pid": ..., "reason": ...}, {"restarted": worker},
{"evaluator_died": reason, "pid": ..., "again": bool}, {"stop": reason, "failed": bool}, {"no_worker_left": reason}
when it has no workers itself, and to a server that is started again {"server_died": reason, "server_restarts": n,
"restarts": {worker: n}, "others": whether there were workers}.
From the server: {"address": ...} once it listens (or {"nothing_left": true}, if it resumed a run that is at its end),
{"status": ...}, {"quarantined": [workers]} when it has shut out one more, {"ending": true} before it dismisses the
workers.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import msgspec


class Channel:
    """One end of the line. Sending never blocks: a reader that doesn't read loses statuses, never its process."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._end.setblocking(False)
        self._in, self._out = b"", b""
        self.closed = False

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, message: dict[str, Any], droppable: bool = False) -> None:
        """Send now what fits, the rest with the next call; a droppable message is skipped while something waits."""
        if droppable and self._out:
            self._write()
            if self._out:
                return
        self._out += msgspec.json.encode(message) + b"\n"
        self._write()

    def _write(self) -> None:
        try:
            while self._out:
                self._out = self._out[self._end.send(self._out) :]
        except BlockingIOError:
            pass  # the rest goes with the next call
        except OSError:
            self.closed, self._out = True, b""

    def forget_half_a_line(self) -> None:
        """Whoever wrote to us is dead, and another will go on in its place."""
        self._in = b""

    def finish(self, timeout_s: float) -> None:
        """Send what waits, for so long at most, and close."""
        with contextlib.suppress(OSError):
            self._end.settimeout(timeout_s)
            if self._out:
                self._end.sendall(self._out)
        self._end.close()

    def receive(self) -> list[dict[str, Any]]:
        """The messages that are there, without waiting; `closed` says that no more can come."""
        try:
            while True:
                got = self._end.recv(65536)
                if not got:
                    self.closed = True
                    break
                self._in += got
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True
        *lines, self._in = self._in.split(b"\n")
        return [msgspec.json.decode(line) for line in lines]
