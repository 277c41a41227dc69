"""Who gets in: right keys only; everybody else hears why in one sentence, soon."""

from __future__ import annotations

import contextlib
import socket
import time
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgd.net.door import decide
from asgd.net.keys import ClientKeys, load_client_keys, load_server_keys
from asgd.net.transport import KeyRefused
from asgd.net.zeromq import ZmqClient, ZmqServer

WAIT_S = 20.0
SOON_S = 8.0  # for a handshake that fails, on a loaded machine


@pytest.fixture(params=["tcp", "ipc"])
def address(request, tmp_path):
    return "tcp://127.0.0.1:0" if request.param == "tcp" else f"ipc://{tmp_path}/net"


def talk(server: ZmqServer, client: ZmqClient) -> None:
    client.send(b"hello", memoryview(bytes(3_000_000)))
    received = server.recv(WAIT_S)
    assert received is not None and received.header == b"hello" and received.payload_bytes == 3_000_000
    server.send(received.peer, b"yes", memoryview(bytes(3_000_000)))
    answer = client.recv(WAIT_S)
    assert answer is not None and answer.payload_bytes == 3_000_000


def sentence(client: ZmqClient) -> str:
    """What a client that isn't let in hears, within the limit; it leaves at once, whatever it wanted to send."""
    began_s = time.monotonic()
    with pytest.raises(KeyRefused) as caught:
        client.send(b"hello")
        while time.monotonic() < began_s + SOON_S:
            assert client.recv(1.0) is None
    client.close()
    assert time.monotonic() - began_s < SOON_S
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_those_of_the_list_get_in_each_with_its_key(keys, address):
    with ZmqServer(address, keys=load_server_keys(keys)) as server:
        for name in ("worker", "second"):
            with ZmqClient(server.address, keys=load_client_keys(keys, name)) as client:
                talk(server, client)


def test_each_message_comes_with_the_name_of_its_senders_key(keys, address):
    with ExitStack() as stack:
        server = stack.enter_context(ZmqServer(address, keys=load_server_keys(keys)))
        for name in ("worker", "second"):
            client = stack.enter_context(ZmqClient(server.address, keys=load_client_keys(keys, name)))
            for payload in (None, memoryview(bytes(3_000_000))):
                client.send(b"hello", payload)
                received = server.recv(WAIT_S)
                assert received is not None and received.name == name
                server.send(received.peer, b"yes")
                answer = client.recv(WAIT_S)
                assert answer is not None and answer.name == ""
    with ZmqServer(address) as server, ZmqClient(server.address) as client:
        client.send(b"hello")
        assert server.recv(WAIT_S).name == ""


def test_a_key_that_is_not_in_the_list(keys, address):
    told = []
    (keys / "accepted" / "second.pub").unlink()
    with ZmqServer(address, keys=load_server_keys(keys), tell=told.append) as server:
        client = ZmqClient(server.address, keys=load_client_keys(keys, "second"))
        assert "does not have our key in its list" in sentence(client)
        assert server.recv(0.0) is None
        assert told == ["refused a client whose key is not in the server's list"]
        with ZmqClient(server.address, keys=load_client_keys(keys, "worker")) as good:
            talk(server, good)


@pytest.mark.slow
def test_another_servers_key(keys, address):
    ours = load_client_keys(keys, "worker")
    wrong = ClientKeys(ours.secret, ours.public, load_client_keys(keys.parent / "others", "worker").server)
    with ZmqServer(address, keys=load_server_keys(keys)) as server:
        said = sentence(ZmqClient(server.address, keys=wrong))
        assert "breaks off every handshake: server.pub here is not the key of that server" in said
        assert server.recv(0.0) is None


def test_no_key(keys, address):
    with ZmqServer(address, keys=load_server_keys(keys)) as server:
        assert "lets in nobody without a key" in sentence(ZmqClient(server.address))
        assert server.recv(0.0) is None


def test_a_key_where_none_is_asked_for(keys, address):
    with ZmqServer(address) as server:
        said = sentence(ZmqClient(server.address, keys=load_client_keys(keys, "worker")))
        assert "does not encrypt, or is no asgd server" in said
        assert server.recv(0.0) is None


def test_a_client_with_keys_waits_for_its_server(keys):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with ZmqClient(address, keys=load_client_keys(keys, "worker")) as client:
        assert client.recv(0.2) is None
        with ZmqServer(address, keys=load_server_keys(keys)) as server:
            talk(server, client)
        with ZmqServer(address, keys=load_server_keys(keys)) as server:  # its successor
            talk(server, client)


def test_nothing_travels_in_the_clear(keys):
    """Both ways through a relay that keeps what it carries."""
    with ZmqServer("tcp://127.0.0.1:0", keys=load_server_keys(keys)) as server:
        port = int(server.address.rpartition(":")[2])
        with socket.create_server(("127.0.0.1", 0)) as relay:
            address = f"tcp://127.0.0.1:{relay.getsockname()[1]}"
            with ZmqClient(address, keys=load_client_keys(keys, "worker")) as client:
                client.send(b"in the clear?", memoryview(b"in the clear?" * 100))
                near, _ = relay.accept()
                with near, socket.create_connection(("127.0.0.1", port)) as far:
                    carried, deadline = b"", time.monotonic() + WAIT_S
                    for end in (near, far):
                        end.setblocking(False)
                    received = None
                    while received is None and time.monotonic() < deadline:
                        for source, target in ((near, far), (far, near)):
                            with contextlib.suppress(BlockingIOError):
                                piece = source.recv(65536)
                                carried += piece
                                target.sendall(piece)
                        received = server.recv(0.001)
    assert received is not None and received.header == b"in the clear?"
    assert b"clear" not in carried and len(carried) > 1300
    for path in keys.rglob("*.key"):
        assert path.read_bytes().strip() not in carried


@given(st.lists(st.binary(max_size=64), max_size=9))
def test_the_policy_lets_nobody_in_by_chance(request_frames):
    answer = decide(request_frames, {b"x" * 40: "x"})
    assert len(answer) == 6 and answer[2] == b"400"


@pytest.mark.parametrize("place", [0, 2, 5, 6])
def test_every_part_of_a_request_counts(keys, place):
    from zmq.utils import z85

    accepted = load_server_keys(keys).accepted
    key = z85.decode(next(iter(accepted)))
    request = [b"1.0", b"7", b"asgd", b"127.0.0.1", b"", b"CURVE", key]
    assert decide(request, accepted)[1:3] == [b"7", b"200"]
    request[place] = b"x" * len(request[place])
    assert decide(request, accepted)[1:3] == [b"7", b"400"]
    assert decide([*request, b""], accepted)[2] == b"400"
