"""What is particular to ZeroMQ: addresses, what other programs may do to the socket, resources."""

from __future__ import annotations

import io
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import zmq

from asgd.errors import ConfigError, RunError
from asgd.net.transport import FRAME_BYTES
from asgd.net.zeromq import ZmqClient, ZmqServer

from .conftest import CLOSE_LIMIT_S, within

WAIT_S = 20.0


@pytest.fixture
def server() -> Iterator[ZmqServer]:
    end = ZmqServer("tcp://127.0.0.1:0")
    yield end
    within(CLOSE_LIMIT_S, end.close, "closing the server")


def works(server: ZmqServer) -> bool:
    with ZmqClient(server.address) as client:
        client.send(b"hello", memoryview(bytes(FRAME_BYTES + 1)))
        received = server.recv(WAIT_S)
        assert received is not None and received.header == b"hello" and received.payload_bytes == FRAME_BYTES + 1
        server.send(received.peer, b"yes")
        answer = client.recv(WAIT_S)
        return answer is not None and answer.header == b"yes"


def test_port_0_takes_a_free_port_and_says_which(server):
    host, port = server.address.removeprefix("tcp://").split(":")
    assert host == "127.0.0.1" and 1 <= int(port) <= 65535
    assert works(server)


@pytest.mark.parametrize("address", ["tcp://localhost:0", "tcp://*:0"])
def test_names_and_all_interfaces(address):
    with ZmqServer(address) as server:
        port = server.address.rpartition(":")[2]
        with ZmqClient(f"tcp://localhost:{port}") as client:
            client.send(b"hello")
            assert server.recv(WAIT_S) is not None


@pytest.mark.parametrize(
    "address",
    [
        "",
        "127.0.0.1:5555",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:",
        "tcp://127.0.0.1:http",
        "tcp://:5555",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:-1",
        "tcp://a b:5555",
        "tcp://eth0;127.0.0.1:5555",
        "inproc://name",
        "udp://127.0.0.1:5555",
        "ipc://",
        "ipc://*",
        "IPC:///tmp/x",
    ],
)
def test_a_malformed_address_is_named_with_what_is_allowed(address):
    for end in (ZmqServer, ZmqClient):
        with pytest.raises(ConfigError, match="allowed are") as caught:
            end(address)
        assert repr(address) in str(caught.value)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:0", "tcp://*:5555"])
def test_a_client_needs_a_host_and_a_port(address):
    with pytest.raises(ConfigError):
        ZmqClient(address)


def test_a_host_without_an_address_is_named():
    for end in (ZmqServer, ZmqClient):
        with pytest.raises(RunError, match=r"cannot find the host of tcp://no-such-host.invalid:5555"):
            end("tcp://no-such-host.invalid:5555")


def test_an_address_of_another_machine_cannot_be_listened_at():
    with pytest.raises(ConfigError, match=r"cannot listen at tcp://192.0.2.1:0"):
        ZmqServer("tcp://192.0.2.1:0")


def test_a_port_in_use_is_named(server):
    with pytest.raises(RunError, match=f"cannot listen at {server.address}: the address is in use"):
        ZmqServer(server.address)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(RunError, match="in use"):
            ZmqServer(address)
    assert works(server)


def test_a_path_too_long_for_the_system_is_named_with_the_limit(tmp_path):
    for end in (ZmqServer, ZmqClient):
        with pytest.raises(ConfigError, match="120 bytes; the system allows 107"):
            end("ipc:///" + "x" * 119)
        with pytest.raises(ConfigError, match="108 bytes"):
            end("ipc:///tmp/" + "é" * 51 + "x")


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="there is no directory"):
        ZmqServer(f"ipc://{tmp_path}/missing/net")


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "thesis.txt"
    path.write_text("years of work")
    with pytest.raises(ConfigError, match="exists and is not a socket"):
        ZmqServer(f"ipc://{path}")
    assert path.read_text() == "years of work"


def test_a_running_servers_socket_is_not_taken_over(tmp_path):
    address = f"ipc://{tmp_path}/net"
    with ZmqServer(address) as server:
        with pytest.raises(RunError, match="the address is in use"):
            ZmqServer(address)
        assert works(server)


def test_a_dead_servers_socket_is_replaced(tmp_path):
    path = tmp_path / "net"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    with ZmqServer(f"ipc://{path}") as server:
        assert works(server)
    assert not path.exists()


def test_a_frame_beyond_the_limit_ends_its_connection_only(server):
    context = zmq.Context()
    try:
        with context.socket(zmq.DEALER) as other:
            other.setsockopt(zmq.LINGER, 0)
            other.setsockopt(zmq.RECONNECT_IVL, -1)
            monitor = other.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            other.connect(server.address)
            other.send_multipart([b"header", bytes(FRAME_BYTES + 1)])
            assert monitor.poll(int(WAIT_S * 1000)), "the server didn't close the connection"
            other.disable_monitor()
            monitor.close()
    finally:
        context.destroy(linger=0)
    assert server.recv(0.0) is None
    assert works(server)


GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
READY = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"


def zmtp_dealer(server: ZmqServer) -> socket.socket:
    """A DEALER written by hand (ZMTP 3.0, RFC 23), so that it can stop anywhere within a message."""
    host, port = server.address.removeprefix("tcp://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=WAIT_S)
    connection.sendall(GREETING + b"\x04" + bytes([len(READY)]) + READY)
    with connection.makefile("rb", buffering=0) as file:  # messages may follow only the server's own READY
        assert len(read(file, 64)) == 64
        flags, size = read(file, 2)
        assert flags == 4 and read(file, size).startswith(b"\x05READY")
    return connection


def read(file: io.RawIOBase, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = file.read(size - len(data))
        assert piece, "the server closed the connection"
        data += piece
    return data


def frame(body: bytes, *, more: bool) -> bytes:
    return bytes([more, len(body)]) + body


def closed_by_server(connection: socket.socket) -> bool:
    """Read until the end; a time-out fails the test."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def test_a_peer_that_dies_within_a_message_leaves_nothing_of_it(server):
    with zmtp_dealer(server) as whole:
        whole.sendall(frame(b"header", more=True) + frame(b"payload", more=False))
        received = server.recv(WAIT_S)
        assert received is not None and received.header == b"header" and received.payload_bytes == 7
        with zmtp_dealer(server) as dying:
            dying.sendall(frame(b"half", more=True) + frame(b"pay", more=True) + b"\x00\x10part")
            dying.shutdown(socket.SHUT_WR)
            assert closed_by_server(dying)
        assert server.recv(0.05) is None
        whole.sendall(frame(b"next", more=False))
        received = server.recv(WAIT_S)
        assert received is not None and received.header == b"next" and received.payload_bytes == 0
    assert works(server)


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n" * 20, bytes(200), b"\xff" * 200], ids=["http", "0", "255"])
def test_other_programs_at_the_port_do_no_harm(server, noise):
    host, port = server.address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), timeout=WAIT_S) as stranger:
        stranger.sendall(noise)
        with suppress(OSError):  # the server may have closed already
            stranger.shutdown(socket.SHUT_WR)
        assert closed_by_server(stranger)
    assert server.recv(0.0) is None
    assert works(server)


def test_closing_with_messages_for_nobody_takes_no_longer_than_the_linger_time(monkeypatch):
    monkeypatch.setattr("asgd.net.endpoint.LINGER_S", 0.3)
    client = ZmqClient("tcp://127.0.0.1:9")  # discard: nobody listens there
    client.send(b"anybody?")
    within(0.3 + 1.5, client.close, "closing")


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_opening_and_closing_leaves_no_descriptor_behind(tmp_path: Path):
    def once() -> None:
        with ExitStack() as stack:
            server = stack.enter_context(ZmqServer(f"ipc://{tmp_path}/net"))
            assert works(server)
            with pytest.raises(RunError):
                ZmqServer(server.address)
        for address in ("tcp://192.0.2.1:0", "tcp://no-such-host.invalid:1"):
            with pytest.raises((ConfigError, RunError)):
                ZmqServer(address)

    once()
    before = descriptors()
    for _ in range(5):
        once()
    assert len(descriptors()) <= len(before)


@pytest.mark.parametrize("scheme", ["ipc", "tcp"])
def test_a_broken_connection_is_counted_and_made_again(tmp_path, scheme):
    """What is sent while nobody listens waits for the next server at the same address."""
    address = f"ipc://{tmp_path}/s"
    if scheme == "tcp":
        with ZmqServer("tcp://127.0.0.1:0") as server:
            address = server.address
    with ZmqClient(address) as client:
        with ZmqServer(address) as server:
            client.send(b"first")
            received = server.recv(WAIT_S)
            assert received is not None and received.header == b"first" and client.num_broken == 0
        assert until(lambda: client.num_broken == 1)
        client.send(b"second")
        with ZmqServer(address) as server:
            received = server.recv(WAIT_S)
            assert received is not None and received.header == b"second"
            assert client.num_broken == 1


def until(holds: Callable[[], bool]) -> bool:
    """Whether something comes true in time."""
    deadline_s = time.monotonic() + WAIT_S
    while not holds() and time.monotonic() < deadline_s:
        threading.Event().wait(0.01)
    return holds()
