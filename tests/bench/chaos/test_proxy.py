"""The proxy between a worker and the server, on plain sockets."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from asgd.bench.chaos.proxy import Proxy

LIMIT_S = 10.0


def listen(kind, folder):
    if kind == "tcp":
        listener = socket.create_server(("127.0.0.1", 0))
        return listener, f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(folder / "server"))
    listener.listen()
    return listener, f"ipc://{folder}/server"


def connect(address):
    """Connect as soon as the door is open."""
    scheme, _, place = address.partition("://")
    deadline_s = time.monotonic() + LIMIT_S
    while True:
        end = socket.socket(socket.AF_UNIX if scheme == "ipc" else socket.AF_INET, socket.SOCK_STREAM)
        end.settimeout(LIMIT_S)
        try:
            end.connect(place if scheme == "ipc" else ("127.0.0.1", int(place.rpartition(":")[2])))
            return end
        except OSError:
            end.close()
            assert time.monotonic() < deadline_s, "the door stays shut"


def exactly(end, number):
    got = b""
    while len(got) < number:
        data = end.recv(number - len(got))
        assert data, f"the connection ended after {len(got)} bytes"
        got += data
    return got


def is_over(end):
    """Whether a connection ends, within the limit, without another byte."""
    try:
        return end.recv(1) == b""
    except ConnectionError:
        return True


@pytest.fixture(params=["ipc", "tcp"])
def world(request, tmp_path):
    """A server that listens, a proxy before it, and a function that gives a client and the server's end of it."""
    listener, address = listen(request.param, tmp_path)
    listener.settimeout(LIMIT_S)
    with contextlib.ExitStack() as stack, Proxy(delay_s=0.3) as proxy:
        stack.callback(listener.close)
        door = proxy.address(2, address)

        def pair():
            client = stack.enter_context(connect(door))
            client.sendall(b"?")
            while True:  # connections that only looked whether somebody is there end at once
                served, _ = listener.accept()
                served.settimeout(LIMIT_S)
                if served.recv(1) == b"?":
                    return client, stack.enter_context(served)
                served.close()

        yield proxy, pair, listener


def test_everything_passes_both_ways_in_order(world):
    proxy, pair, _ = world
    client, served = pair()
    data = bytes(range(256)) * 2000
    client.sendall(data)
    assert exactly(served, len(data)) == data
    served.sendall(data[::-1])
    assert exactly(client, len(data)) == data[::-1]
    assert proxy.num_heard > 1


def test_what_is_slow_is_late_and_stays_in_order(world):
    proxy, pair, _ = world
    client, served = pair()
    proxy.slow(2, True)
    began_s = time.monotonic()
    client.sendall(b"first")
    assert exactly(served, 1) == b"f"
    assert time.monotonic() - began_s >= 0.25
    client.sendall(b"second")
    proxy.slow(2, False)
    assert exactly(served, 10) == b"irstsecond"


def test_a_cut_ends_both_sides_and_the_next_connection_is_good(world):
    proxy, pair, _ = world
    client, served = pair()
    proxy.cut(2)
    assert is_over(client) and is_over(served)
    client, served = pair()
    served.sendall(b"again")
    assert exactly(client, 5) == b"again"


def test_a_half_open_connection_stands_and_nothing_passes_until_it_is_cut(world):
    proxy, pair, _ = world
    client, served = pair()
    proxy.swallow(2)
    other_client, other_served = pair()  # by now the order has been followed
    client.sendall(b"lost")
    other_client.sendall(b"good")
    assert exactly(other_served, 4) == b"good"
    served.settimeout(0.2)
    with pytest.raises(TimeoutError):
        served.recv(1)
    served.settimeout(LIMIT_S)
    proxy.cut(2, swallowed_only=True)
    assert is_over(client) and is_over(served)
    other_client.sendall(b"still")
    assert exactly(other_served, 5) == b"still"


def test_a_side_that_ends_takes_the_other_with_it_after_what_it_said(world):
    _, pair, _ = world
    client, served = pair()
    client.sendall(b"goodbye")
    client.close()
    assert exactly(served, 7) == b"goodbye" and is_over(served)


def test_the_door_is_shut_while_nobody_is_behind_it(world):
    _, pair, listener = world
    client, served = pair()
    listener.close()
    served.close()
    assert is_over(client)
    place = client.getpeername()
    deadline_s = time.monotonic() + LIMIT_S
    while True:
        with socket.socket(client.family, socket.SOCK_STREAM) as late:
            try:
                late.connect(place)
            except OSError:
                return
        assert time.monotonic() < deadline_s, "it still lets people in"
