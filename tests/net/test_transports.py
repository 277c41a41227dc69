"""The contract of every transport (asgd/net/transport.py), the same tests for all of them."""

from __future__ import annotations

import os
import threading
import time
from array import array

import pytest

from asgd.errors import ProtocolError, RunError
from asgd.net.messages import MAX_HEADER_BYTES
from asgd.net.transport import (
    FRAME_BYTES,
    MAX_QUEUED_MESSAGES,
    BadMessage,
    PeerGone,
    Received,
    ServerTransport,
    cut,
)

WAIT_S = 20.0
NOISE = os.urandom(1_000_003)  # repeated it makes payloads of any size, no two of whose frames are the same


def joined(received: Received | None) -> bytes:
    assert received is not None, f"nothing arrived within {WAIT_S} s"
    buffer = bytearray(received.payload_bytes)
    received.copy_payload_into(memoryview(buffer))
    return bytes(buffer)


def greet(server, client, header: bytes = b"hello") -> bytes:
    """Let the client say hello; the peer that the server knows it by."""
    client.send(header)
    received = server.recv(WAIT_S)
    assert received is not None and received.header == header
    return received.peer


def send_until_gone(server: ServerTransport, peer: bytes) -> str:
    """The sentence of PeerGone; the transport may need a moment to notice."""
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        try:
            server.send(peer, b"are you there?")
        except PeerGone as error:
            return str(error)
        assert server.recv(0.01) is None
    raise AssertionError(f"no PeerGone within {WAIT_S} s")


@pytest.mark.parametrize("size", [0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 2 * FRAME_BYTES + 3, 45_000_000])
def test_header_and_payload_arrive_both_ways_unchanged(net, size):
    server, client = net.server(), net.client()
    noise = NOISE * (size // len(NOISE) + 2)
    there, back = noise[:size], noise[1 : size + 1]
    client.send(b"there", memoryview(there))
    received = server.recv(WAIT_S)
    assert received is not None and received.header == b"there" and received.payload_bytes == size
    assert joined(received) == there
    assert all(frame.nbytes <= FRAME_BYTES for frame in received.payload)
    server.send(received.peer, b"back", memoryview(back))
    answer = client.recv(WAIT_S)
    assert answer is not None and (answer.header, answer.peer) == (b"back", b"")
    assert joined(answer) == back
    assert client.recv(0.0) is None and server.recv(0.0) is None


def test_a_message_without_payload_has_none(net):
    server, client = net.server(), net.client()
    client.send(b"h")
    received = server.recv(WAIT_S)
    assert received is not None and list(received.payload) == []
    with pytest.raises(ProtocolError, match="0 bytes came where 4 were expected"):
        received.copy_payload_into(memoryview(bytearray(4)))


def test_send_copies_so_the_buffer_may_be_overwritten_at_once(net):
    server, client = net.server(), net.client()
    peer = greet(server, client)
    buffer = bytearray(3 * FRAME_BYTES)
    for number in range(1, 6):
        buffer[:] = bytes([number]) * len(buffer)
        client.send(b"x", memoryview(buffer))
        server.send(peer, b"x", memoryview(buffer))
        buffer[:] = bytes(len(buffer))
    for number in range(1, 6):
        expected = bytes([number]) * len(buffer)
        assert joined(server.recv(WAIT_S)) == expected
        assert joined(client.recv(WAIT_S)) == expected


def test_a_received_message_stays_while_later_ones_come(net):
    server, client = net.server(), net.client()
    kept = []
    for number in range(8):
        client.send(b"x", memoryview(bytes([number]) * (FRAME_BYTES + 7)))
        kept.append(server.recv(WAIT_S))
    assert [joined(received)[-1] for received in kept] == list(range(8))


def test_payloads_of_any_item_type_but_only_contiguous_ones(net):
    server, client = net.server(), net.client()
    floats = array("f", [1.5, -2.0, 3.25])
    client.send(b"floats", memoryview(floats))
    received = server.recv(WAIT_S)
    assert received is not None and received.payload_bytes == 12
    target = array("f", [0.0] * 3)
    received.copy_payload_into(memoryview(target))
    assert target == floats
    with pytest.raises(ProtocolError, match="contiguous"):
        client.send(b"gaps", memoryview(b"abcdef")[::2])


def test_order_is_kept_each_way(net):
    server, client = net.server(), net.client()
    peer = greet(server, client)
    there, back = [], []
    for batch in range(10):
        for number in range(batch * 30, batch * 30 + 30):
            payload = memoryview(bytes(number % 7 * 40_000))
            client.send(number.to_bytes(4, "big"), payload)
            server.send(peer, number.to_bytes(4, "big"), payload)
        for _ in range(30):
            first, second = server.recv(WAIT_S), client.recv(WAIT_S)
            assert first is not None and second is not None
            there.append((int.from_bytes(first.header, "big"), first.payload_bytes))
            back.append((int.from_bytes(second.header, "big"), second.payload_bytes))
    assert there == back == [(number, number % 7 * 40_000) for number in range(300)]


def test_messages_of_two_peers_do_not_mix(net):
    server, clients = net.server(), [net.client(), net.client()]
    size = 5 * FRAME_BYTES + 11

    def talk(number: int) -> None:
        for _ in range(10):
            clients[number].send(bytes([number]), memoryview(bytes([number]) * size))

    threads = [threading.Thread(target=talk, args=(number,), daemon=True) for number in (0, 1)]
    for thread in threads:
        thread.start()
    peers: dict[int, set[bytes]] = {0: set(), 1: set()}
    for _ in range(20):
        received = server.recv(WAIT_S)
        payload = joined(received)
        assert received is not None and payload == received.header * size
        peers[received.header[0]].add(received.peer)
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert len(peers[0]) == len(peers[1]) == 1 and peers[0] != peers[1]
    for number in (1, 0):
        server.send(peers[number].pop(), b"to %d" % number)
    assert [client.recv(WAIT_S).header for client in clients] == [b"to 0", b"to 1"]


def test_recv_returns_none_after_its_time_and_not_before(net):
    server, client = net.server(), net.client()
    greet(server, client)
    for end in (server, client):
        start_s = time.monotonic()
        assert end.recv(0.06) is None
        assert 0.055 <= time.monotonic() - start_s < 3.0
        assert end.recv(0.0) is None and end.recv(-1.0) is None


def test_recv_returns_at_once_while_a_wake_descriptor_is_readable(net):
    server, client = net.server(), net.client()
    greet(server, client)
    (quiet, _quiet_end), (read_end, write_end) = os.pipe(), os.pipe()
    try:
        timer = threading.Timer(0.2, os.write, (write_end, b"!"))
        start_s = time.monotonic()
        timer.start()
        assert server.recv(WAIT_S, wake=[quiet, read_end]) is None
        assert 0.15 < time.monotonic() - start_s < 5.0
        timer.join(WAIT_S)

        client.send(b"wait")
        assert server.recv(WAIT_S, wake=[read_end]) is None, "a readable descriptor goes before messages"
        os.read(read_end, 1)
        received = server.recv(WAIT_S, wake=[quiet, read_end])
        assert received is not None and received.header == b"wait"

        os.close(write_end)
        write_end = -1
        start_s = time.monotonic()
        assert server.recv(WAIT_S, wake=[read_end]) is None, "so does one whose other end has closed"
        assert time.monotonic() - start_s < 5.0
    finally:
        for descriptor in (quiet, _quiet_end, read_end, write_end):
            if descriptor >= 0:
                os.close(descriptor)


def test_sending_to_a_peer_that_never_was_raises(net):
    server = net.server()
    with pytest.raises(PeerGone, match="6e6f626f6479"):
        server.send(b"nobody", b"h", memoryview(bytes(3 * FRAME_BYTES)))
    assert server.bytes_out == 0


def test_sending_to_a_peer_that_has_vanished_raises_and_others_go_on(net):
    server, gone, other = net.server(), net.client(), net.client()
    gone_peer, other_peer = greet(server, gone), greet(server, other)
    assert gone_peer != other_peer
    gone.close()
    assert gone_peer.hex() in send_until_gone(server, gone_peer)
    server.send(other_peer, b"still here")
    answer = other.recv(WAIT_S)
    assert answer is not None and answer.header == b"still here"


def test_a_reader_that_does_not_read_never_blocks_the_server(net):
    server, client, other = net.server(), net.client(), net.client()
    peer, other_peer = greet(server, client), greet(server, other)
    payload = memoryview(bytes(200_000))
    sent, start_s = 0, time.monotonic()
    with pytest.raises(PeerGone, match=f"more than {MAX_QUEUED_MESSAGES} messages unread"):
        while sent < 1000:
            server.send(peer, sent.to_bytes(4, "big"), payload)
            sent += 1
    assert MAX_QUEUED_MESSAGES <= sent < 1000 and time.monotonic() - start_s < 10.0
    server.send(other_peer, b"you")
    answer = other.recv(WAIT_S)
    assert answer is not None and answer.header == b"you"
    for number in range(sent):  # what was accepted arrives, whole and in order
        received = client.recv(WAIT_S)
        assert received is not None and received.header == number.to_bytes(4, "big")
        assert received.payload_bytes == 200_000
    server.send(peer, b"again")
    received = client.recv(WAIT_S)
    assert received is not None and received.header == b"again"


def test_a_client_without_a_server_neither_hangs_nor_fills_memory(net, monkeypatch):
    monkeypatch.setattr("asgd.net.endpoint.LINGER_S", 0.3)
    client = net.client()
    start_s = time.monotonic()
    assert client.recv(0.1) is None
    with pytest.raises(PeerGone, match="can't be reached"):
        for _ in range(2 * MAX_QUEUED_MESSAGES + 1):
            client.send(b"anybody?")
    client.close()
    assert time.monotonic() - start_s < 0.3 + 3.0


def test_a_client_may_come_before_the_server(net):
    client = net.client()
    client.send(b"early", memoryview(b"bird"))
    assert client.recv(0.1) is None
    server = net.server()
    received = server.recv(WAIT_S)
    assert received is not None and received.header == b"early" and joined(received) == b"bird"


def test_what_was_sent_before_closing_still_arrives(net):
    server, client = net.server(), net.client()
    peer = greet(server, client)
    payload = os.urandom(3 * FRAME_BYTES)
    server.send(peer, b"stop", memoryview(payload))
    server.close()
    last = client.recv(WAIT_S)
    assert last is not None and last.header == b"stop" and joined(last) == payload


def test_what_a_client_sent_before_closing_still_arrives(net):
    server, client = net.server(), net.client()
    client.send(b"goodbye", memoryview(bytes(FRAME_BYTES + 1)))
    client.close()
    received = server.recv(WAIT_S)
    assert received is not None and received.header == b"goodbye" and received.payload_bytes == FRAME_BYTES + 1


def test_closing_twice_and_as_a_context(net):
    with net.server() as server, net.client() as client:
        greet(server, client)
    server.close()
    client.close()
    with net.server() as again:  # the address is free
        assert again.recv(0.0) is None


def test_one_address_has_one_server(net):
    server, client = net.server(), net.client()
    with pytest.raises(RunError, match=r"cannot listen at .*(in use|has a server already)"):
        net.server()
    greet(server, client)


def test_an_oversized_payload_is_refused_and_its_sender_can_be_told(net):
    limit = FRAME_BYTES + 100
    server, client, other = net.server(max_payload_bytes=limit), net.client(), net.client()
    for size in (limit + 1, 4 * FRAME_BYTES):
        client.send(b"big", memoryview(bytes(size)))
        with pytest.raises(BadMessage, match=f"payload of {size} bytes; at most {limit}") as caught:
            server.recv(WAIT_S)
        server.send(caught.value.peer, b"refused")
        answer = client.recv(WAIT_S)
        assert answer is not None and answer.header == b"refused"
    client.send(b"fits", memoryview(bytes(limit)))
    received = server.recv(WAIT_S)
    assert received is not None and received.header == b"fits" and received.payload_bytes == limit
    greet(server, other)


def test_ones_own_limits_are_kept_when_sending(net):
    server, client = net.server(), net.client(max_payload_bytes=10)
    with pytest.raises(ProtocolError, match="payload of 11 bytes can't be sent; at most 10"):
        client.send(b"h", memoryview(bytes(11)))
    with pytest.raises(ProtocolError, match=f"header of {MAX_HEADER_BYTES + 1} bytes"):
        client.send(bytes(MAX_HEADER_BYTES + 1))
    assert client.bytes_out == 0
    peer = greet(server, client, bytes(MAX_HEADER_BYTES))
    server.send(peer, b"long", memoryview(bytes(11)))
    with pytest.raises(BadMessage, match="payload of 11 bytes; at most 10"):
        client.recv(WAIT_S)


def test_bytes_are_counted(net):
    server, client = net.server(), net.client()
    client.send(b"12345", memoryview(bytes(1_500_000)))
    received = server.recv(WAIT_S)
    assert received is not None
    server.send(received.peer, b"123", memoryview(bytes(7)))
    assert client.recv(WAIT_S) is not None
    assert (client.bytes_out, server.bytes_in, server.bytes_out, client.bytes_in) == (1_500_005, 1_500_005, 10, 10)


def test_a_payload_is_copied_only_into_exactly_its_length():
    received = Received(b"", b"", [memoryview(b"abc"), memoryview(b"de")])
    for size in (4, 6):
        with pytest.raises(ProtocolError, match=f"5 bytes came where {size} were expected"):
            received.copy_payload_into(memoryview(bytearray(size)))
    floats = array("B", bytes(5))
    received.copy_payload_into(memoryview(floats))
    assert floats.tobytes() == b"abcde"


def test_cutting_covers_the_payload_exactly_once_without_copying():
    data = bytearray(os.urandom(2 * FRAME_BYTES + 5))
    frames = cut(memoryview(data))
    assert [frame.nbytes for frame in frames] == [FRAME_BYTES, FRAME_BYTES, 5]
    assert b"".join(frames) == data
    data[0] ^= 1
    assert frames[0][0] == data[0]
    assert cut(None) == cut(memoryview(b"")) == []
