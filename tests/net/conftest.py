"""Servers and clients of every transport, closed under a time limit when a test ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from asgd.net.inprocess import InProcessHub
from asgd.net.keys import load_client_keys, load_server_keys, make_keys
from asgd.net.transport import LINGER_S, ClientTransport, ServerTransport
from asgd.net.zeromq import ZmqClient, ZmqServer

CLOSE_LIMIT_S = LINGER_S + 5.0


def within(limit_s: float, act: Callable[[], Any], what: str) -> None:
    """Run `act` in a thread of its own; fail when it takes longer, raise what it raised."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    assert not thread.is_alive(), f"{what} took more than {limit_s} s"
    if errors:
        raise errors[0]


class Net:
    """Opens the ends of one transport at one address; `limits` are keyword arguments such as max_payload_bytes."""

    def __init__(self, kind: str, directory: Path, stack: ExitStack) -> None:
        self.kind = kind
        self._stack = stack
        self._hub = InProcessHub()
        self._keys: dict[str, Any] = {"server": {}, "client": {}}
        if kind == "curve":
            make_keys(directory / "keys")
            self._keys["server"]["keys"] = load_server_keys(directory / "keys")
            self._keys["client"]["keys"] = load_client_keys(directory / "keys", "worker")
        if kind == "ipc":
            self.address = f"ipc://{directory}/net"
        elif kind in ("tcp", "curve"):
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"

    def server(self, **limits: int) -> ServerTransport:
        if self.kind == "inprocess":
            self._hub.max_payload_bytes = limits.get("max_payload_bytes", self._hub.max_payload_bytes)
            return self._closed_at_the_end(self._hub.server())
        return self._closed_at_the_end(ZmqServer(self.address, **limits, **self._keys["server"]))

    def client(self, **limits: int) -> ClientTransport:
        if self.kind == "inprocess":
            limits.setdefault("max_payload_bytes", 2**40)
            return self._closed_at_the_end(self._hub.client(**limits))
        return self._closed_at_the_end(ZmqClient(self.address, **limits, **self._keys["client"]))

    def _closed_at_the_end(self, end: Any) -> Any:
        self._stack.callback(within, CLOSE_LIMIT_S, end.close, f"closing {end}")
        return end


@pytest.fixture(params=["inprocess", "ipc", "tcp", "curve"])
def net(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Net]:
    with ExitStack() as stack:
        yield Net(request.param, tmp_path, stack)


@pytest.fixture
def keys(tmp_path):
    make_keys(tmp_path / "keys", ("worker", "second"))
    make_keys(tmp_path / "others")
    return tmp_path / "keys"
