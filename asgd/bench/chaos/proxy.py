"""A proxy between workers and the server, of bytes: what passes can be late, be swallowed, or be cut off.

Each worker has a door of its own. A door is open only while the server can be reached behind it, so that a worker
sees of a dead server what it would see without a proxy: a connection that breaks, and nobody there for a while.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from asgd.errors import RunError

_CHUNK_BYTES = 1 << 18
_MOST_WAITING_BYTES = 1 << 24  # of one way; then nothing more is read from where it comes
_KNOCK_EVERY_S = 0.02  # how often a server that is away is looked for
_CONNECT_LIMIT_S = 1.0
_ORDER_LIMIT_S = 10.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closed with a reset, and what is unsent is dropped


@dataclass
class _Way:
    """One direction of a connection: what was read and isn't written yet; b"" is the end."""

    source: socket.socket
    target: socket.socket
    waiting: deque[tuple[float, memoryview]] = field(default_factory=deque)
    num_waiting: int = 0
    blocked: bool = False  # the target takes nothing more at the moment
    ended: bool = False


@dataclass
class _Pair:
    """A connection that passes through."""

    up: _Way
    down: _Way
    swallowed: bool = False

    @property
    def ways(self) -> tuple[_Way, _Way]:
        return self.up, self.down


@dataclass
class _Door:
    """Where one worker comes in."""

    address: str
    server: str
    listener: socket.socket | None = None
    knock_s: float = 0.0
    delay_s: float = 0.0
    num_heard: int = 0
    pairs: list[_Pair] = field(default_factory=list)


class Proxy:
    """Doors to a server, each for one worker, served by one thread; a context manager.

    Arguments: delay_s: how late everything is on a connection that is slow, seconds, > 0.
    Errors: OSError where a door can't be made, RunError when the thread has died.
    """

    def __init__(self, delay_s: float = 0.1) -> None:
        self._delay_s = delay_s
        self._doors: dict[int, _Door] = {}
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._orders: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._ends = False
        self._thread = threading.Thread(target=self._serve, name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._order(self._end)
        self._thread.join()
        self._wake.close()
        self._woken.close()

    # What others ask for, from their threads.

    def address(self, worker: int, server: str) -> str:
        """The address of a worker's door to the server that listens at `server`."""
        door = self._doors.get(worker)
        if door is None:
            door = _Door(_door_address(worker, server), server)
            self._doors[worker] = door
            if not door.address:
                self._open(door)
            self._order(lambda: self._knock(door))
        return door.address

    def slow(self, worker: int, is_slow: bool) -> None:
        """Make all that passes late from now on, or no longer."""
        self._order(lambda: setattr(self._doors[worker], "delay_s", self._delay_s if is_slow else 0.0))

    def swallow(self, worker: int) -> None:
        """Leave the connections that a worker has half open: they stand, and nothing passes; new ones are good."""
        self._order(lambda: self._swallow(self._doors[worker]))

    def cut(self, worker: int, swallowed_only: bool = False) -> None:
        """Reset the connections that a worker has (or those that were left half open)."""
        self._order(lambda: self._cut(self._doors[worker], swallowed_only))

    @property
    def num_heard(self) -> int:
        """How often workers have sent something so far."""
        return sum(door.num_heard for door in list(self._doors.values()))

    def _order(self, order: Callable[[], None]) -> None:
        """Have the thread do something; returns when it is done."""
        done = threading.Event()
        self._orders.append((order, done))
        self._wake.send(b"!")
        if not done.wait(_ORDER_LIMIT_S):
            raise RunError(f"the proxy did not follow an order within {_ORDER_LIMIT_S:g} s")

    # The thread.

    def _serve(self) -> None:
        try:
            while not self._ends:
                for key, _ in self._selector.select(self._time_out_s()):
                    if key.fileobj is self._woken:
                        with contextlib.suppress(BlockingIOError):
                            self._woken.recv(4096)
                    elif isinstance(key.data, _Door):
                        self._let_in(key.data)
                    elif key.fileobj.fileno() >= 0:  # type: ignore[union-attr]
                        self._ready(*key.data)
                while self._orders:
                    order, done = self._orders.popleft()
                    order()
                    done.set()
                now_s = time.monotonic()
                for door in list(self._doors.values()):
                    for pair in list(door.pairs):
                        self._pass_on(door, pair, now_s)
                    if door.listener is None and now_s >= door.knock_s:
                        self._knock(door)
        finally:
            for door in list(self._doors.values()):
                self._shut(door)
                for pair in list(door.pairs):
                    self._drop(door, pair)
            self._selector.close()

    def _end(self) -> None:
        self._ends = True

    def _time_out_s(self) -> float | None:
        due_s = [door.knock_s for door in list(self._doors.values()) if door.listener is None]
        for door in list(self._doors.values()):
            for pair in door.pairs:
                due_s += [way.waiting[0][0] for way in pair.ways if way.waiting and not way.blocked]
        return max(0.0, min(due_s) - time.monotonic()) if due_s else None

    def _knock(self, door: _Door) -> None:
        """Open a door if the server is there behind it."""
        door.knock_s = time.monotonic() + _KNOCK_EVERY_S
        try:
            _connect(door.server).close()
        except OSError:
            self._shut(door)
            return
        if door.listener is None:
            self._open(door)
        assert door.listener is not None
        self._selector.register(door.listener, selectors.EVENT_READ, door)

    def _open(self, door: _Door) -> None:
        scheme, _, place = (door.address or door.server).partition("://")
        if scheme == "ipc":
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(place)
            listener.bind(place)
            listener.listen()
        else:
            port = int(place.rpartition(":")[2]) if door.address else 0
            listener = socket.create_server(("127.0.0.1", port))
            door.address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        listener.setblocking(False)
        door.listener = listener

    def _shut(self, door: _Door) -> None:
        if door.listener is None:
            return
        self._forget(door.listener)
        door.listener.close()
        door.listener = None
        if door.address.startswith("ipc://"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(door.address.removeprefix("ipc://"))

    def _let_in(self, door: _Door) -> None:
        if door.listener is None:
            return
        try:
            client, _ = door.listener.accept()
        except OSError:  # it has gone again
            return
        try:
            server = _connect(door.server)
        except OSError:
            client.close()
            self._shut(door)
            return
        pair = _Pair(_Way(client, server), _Way(server, client))
        for end in (client, server):
            end.setblocking(False)
            if end.family == socket.AF_INET:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(end, selectors.EVENT_READ, (door, pair, end))
        door.pairs.append(pair)

    def _ready(self, door: _Door, pair: _Pair, end: socket.socket) -> None:
        """One end of a connection has something to read, or takes something again."""
        way = pair.up if pair.up.source is end else pair.down
        for each in pair.ways:
            each.blocked = each.blocked and each.target is not end
        if not way.ended and way.num_waiting < _MOST_WAITING_BYTES:
            try:
                data = end.recv(_CHUNK_BYTES)
            except BlockingIOError:
                data = None
            except OSError:
                data = b""
            if data is not None:
                self._heard(door, pair, way, data)
        self._watch(door, pair)

    def _heard(self, door: _Door, pair: _Pair, way: _Way, data: bytes) -> None:
        door.num_heard += way is pair.up and bool(data)
        if not data:
            way.ended = True
        if pair.swallowed:
            return
        due_s = max(time.monotonic() + door.delay_s, way.waiting[-1][0] if way.waiting else 0.0)
        way.waiting.append((due_s, memoryview(data)))
        way.num_waiting += len(data)

    def _pass_on(self, door: _Door, pair: _Pair, now_s: float) -> None:
        """Write what is due."""
        for way in pair.ways:
            while way.waiting and not way.blocked and way.waiting[0][0] <= now_s:
                due_s, data = way.waiting.popleft()
                if not data:
                    self._drop(door, pair)
                    if way is pair.down:  # the server may be gone: see whether it is
                        self._shut(door)
                        self._knock(door)
                    return
                try:
                    sent = way.target.send(data)
                except BlockingIOError:
                    sent, way.blocked = 0, True
                except OSError:
                    self._drop(door, pair)
                    return
                way.num_waiting -= sent
                if sent < len(data):
                    way.waiting.appendleft((due_s, data[sent:]))
        self._watch(door, pair)

    def _watch(self, door: _Door, pair: _Pair) -> None:
        """Wait for what each end of a connection can do next."""
        for way, other in ((pair.up, pair.down), (pair.down, pair.up)):
            events = 0
            if not way.ended and way.num_waiting < _MOST_WAITING_BYTES:
                events |= selectors.EVENT_READ
            if other.blocked:
                events |= selectors.EVENT_WRITE
            if way.source.fileno() < 0:
                continue
            known = self._selector.get_map().get(way.source)
            if known is None and events:
                self._selector.register(way.source, events, (door, pair, way.source))
            elif known is not None and not events:
                self._selector.unregister(way.source)
            elif known is not None and known.events != events:
                self._selector.modify(way.source, events, (door, pair, way.source))

    def _swallow(self, door: _Door) -> None:
        for pair in door.pairs:
            pair.swallowed = True
            for way in pair.ways:
                way.waiting.clear()
                way.num_waiting = 0
                way.blocked = False
            self._watch(door, pair)

    def _cut(self, door: _Door, swallowed_only: bool) -> None:
        for pair in list(door.pairs):
            if pair.swallowed or not swallowed_only:
                for way in pair.ways:
                    with contextlib.suppress(OSError):
                        way.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self._drop(door, pair)

    def _drop(self, door: _Door, pair: _Pair) -> None:
        for way in pair.ways:
            self._forget(way.source)
            way.source.close()
        if pair in door.pairs:
            door.pairs.remove(pair)

    def _forget(self, end: socket.socket) -> None:
        if end.fileno() >= 0 and end in self._selector.get_map():
            self._selector.unregister(end)


def _door_address(worker: int, server: str) -> str:
    """Beside the server's socket, if that is a file; "": a free port of this machine."""
    scheme, _, place = server.partition("://")
    return f"ipc://{place}-{worker}" if scheme == "ipc" else ""


def _connect(server: str) -> socket.socket:
    scheme, _, place = server.partition("://")
    if scheme == "ipc":
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.settimeout(_CONNECT_LIMIT_S)
        try:
            end.connect(place)
        except OSError:
            end.close()
            raise
        return end
    host, _, port = place.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), _CONNECT_LIMIT_S)
