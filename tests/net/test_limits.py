"""What a connection may hold and do to the server, and who is cut off."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest
import zmq

from asgd.errors import RunError
from asgd.net.door import Connection, Door, Limits, borrowed
from asgd.net.keys import load_client_keys, load_server_keys
from asgd.net.transport import PeerGone
from asgd.net.zeromq import ZmqClient, ZmqServer

from .test_door import WAIT_S, talk
from .test_zeromq import frame, zmtp_dealer


def until(condition, what, limit_s=WAIT_S):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def memory_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("body", [b"", b"x" * 200], ids=["empty frames", "frames"])
def test_an_endless_message_ends_its_connection_and_the_memory_stays_bounded(body):
    """libzmq would keep the frames of one message until the last has come."""
    told = []
    limits = Limits(stranger_bytes=256 * 1024, messages=4)
    with ZmqServer("tcp://127.0.0.1:0", max_payload_bytes=4096, limits=limits, tell=told.append) as server:
        works = ZmqClient(server.address)
        before = memory_bytes()
        with zmtp_dealer(server) as endless:
            endless.settimeout(WAIT_S)
            piece, sent = frame(body, more=True) * 5000, 0
            with pytest.raises(OSError):
                while sent < 2**31:
                    endless.sendall(piece)
                    sent += len(piece)
        until(lambda: told, "the server said nothing")
        grown = memory_bytes() - before
        assert told == ["cut off a connection that sent over 262,144 bytes without a whole message in time"]
        assert grown < 400e6, f"{grown:,} bytes more"
        with works:
            works.send(b"still")
            received = server.recv(WAIT_S)
            assert received is not None and received.header == b"still"


UNREAD = """
import socket, struct, time
from asgd.bench.hostile_frames import GREETING, READY
from asgd.net.zeromq import ZmqClient, ZmqServer
with ZmqServer("tcp://127.0.0.1:0", max_payload_bytes=4096) as server:
    with socket.create_connection(("127.0.0.1", int(server.address.rpartition(":")[2]))) as peer:
        peer.sendall(GREETING + READY)
        peer.recv(1000)
        peer.sendall(b"\\x00\\x01x" * 20_000)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(6.0)  # longer than it takes until libzmq's timers, if there are some, look at the connection
    with ZmqClient(server.address) as client:
        client.send(b"still")
        for _ in range(30_000):
            received = server.recv(20.0)
            if received is None or received.header == b"still":
                break
        print(received.header.decode())
"""


@pytest.mark.slow
def test_a_peer_that_breaks_off_with_messages_unread_does_not_abort_the_process():
    """In a process of its own: libzmq's heartbeats did that."""
    done = subprocess.run([sys.executable, "-c", UNREAD], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, "still\n"), done.stderr


def test_a_vanished_host_is_the_kernels_business(keys):
    """The connection has keepalive on, with our times, at both ends."""
    with ZmqServer("tcp://127.0.0.1:0") as server, ZmqClient(server.address) as client:
        client.send(b"x")
        assert server.recv(WAIT_S) is not None
        tcp, found = socket.IPPROTO_TCP, {}  # by inode: the thread at the door may have a second handle on one
        for descriptor in os.listdir("/proc/self/fd"):
            with borrowed(int(descriptor)) as connection, contextlib.suppress(OSError):
                if connection is not None and connection.getpeername()[0] == "127.0.0.1":
                    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, 18)
                    on = connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    inode = os.fstat(connection.fileno()).st_ino
                    found[inode] = (on, *(connection.getsockopt(tcp, option) for option in options))
        assert list(found.values()).count((1, 5, 5, 5, 30_000)) == 2, found  # 18: TCP_USER_TIMEOUT


def test_whole_messages_that_nobody_reads_make_their_sender_wait_and_are_not_cut_off(monkeypatch):
    told, looks, look = [], threading.Semaphore(0), Door._look
    monkeypatch.setattr(Door, "_look", lambda door: (look(door), looks.release()))
    limits = Limits(messages=4)
    with ZmqServer("tcp://127.0.0.1:0", max_payload_bytes=1_000_000, limits=limits, tell=told.append) as server:  # noqa: SIM117
        with ZmqClient(server.address) as client:
            for number in range(32):
                client.send(b"%d" % number, memoryview(bytes(1_000_000)))
            while looks.acquire(blocking=False):  # those of before
                pass
            assert all(looks.acquire(timeout=WAIT_S) for _ in range(8)), "the thread at the door doesn't look"
            for number in range(32):
                received = server.recv(WAIT_S)
                assert received is not None and received.header == b"%d" % number
    assert told == []


def admitted(server, send) -> bytes:
    send()
    received = server.recv(WAIT_S)
    assert received is not None
    server.admit(received.peer)
    return received.peer


def test_one_that_does_not_read_is_cut_off_long_before_it_holds_a_queue_of_messages():
    """Those that read go on, though they get more at once: their own threads take it while they compute."""
    told, limits, piece = [], Limits(unread_s=0.5), memoryview(bytes(4_000_000))
    with ExitStack() as stack:
        server = stack.enter_context(
            ZmqServer("tcp://127.0.0.1:0", max_payload_bytes=4_000_000, limits=limits, tell=told.append)
        )
        works = stack.enter_context(ZmqClient(server.address))
        good = admitted(server, lambda: works.send(b"good"))
        mute = stack.enter_context(zmtp_dealer(server))
        bad = admitted(server, lambda: mute.sendall(frame(b"bad", more=False)))
        for peer in (good, bad):
            for _ in range(20):
                server.send(peer, b"job", piece)
        until(lambda: told, "nobody was cut off")
        assert told == ["cut off a connection that left over 9,187,460 bytes unread for 0.5 s"]

        def is_gone():
            try:
                server.send(bad, b"more")
            except PeerGone as error:
                assert "isn't connected" in str(error)
                return True
            return False

        until(is_gone, "the one that reads nothing is still there")
        for _ in range(20):
            assert works.recv(WAIT_S).payload_bytes == 4_000_000
        assert works.num_broken == 0 and len(told) == 1


def test_an_admission_is_for_the_connection_that_asks_whatever_had_its_descriptor(monkeypatch):
    """Though the thread at the door were slow to hear of connections, it knows them when one is admitted."""
    hear, asked = Door._hear, threading.Event()
    monkeypatch.setattr(Door, "_hear", lambda door: hear(door) if asked.is_set() else None)
    with ZmqServer("tcp://127.0.0.1:0") as server:
        before = set()
        for _ in range(5):
            asked.clear()
            with zmtp_dealer(server) as mute:
                mute.sendall(frame(b"hello", more=False))
                peer = server.recv(WAIT_S).peer
                assert set(map(id, server._door._connections.values())) <= before
                asked.set()
                server.admit(peer)
                known = server._admitted[peer]
                assert not known.is_stranger and not known.is_closed and id(known) not in before
                before.add(id(known))


def test_what_counts_as_unread_and_for_how_long():
    """Sent 100 MB of which the kernel has acknowledged so much at each moment; heads of frames come on top."""

    def stuck(*looks):
        connection = Connection(room_bytes=0, sent_bytes=100_000_000)
        return [connection.is_stuck(acknowledged, 9_000_000, 2.0, now_s) for now_s, acknowledged in looks]

    assert stuck((1.0, 10**6), (2.9, 10**6), (3.1, 10**6)) == [False, False, True]
    assert stuck((1.0, 10**6), (2.9, 10**6 + 65_536), (3.1, 10**6 + 65_536), (4.8, 10**6 + 65_536)) == [False] * 4
    assert stuck((1.0, 10**6), (2.0, 10**6 + 30_000), (3.1, 10**6 + 60_000))[-1]  # drop by drop
    assert not any(stuck((1.0, 92 * 10**6), (30.0, 92 * 10**6)))  # two whole messages may lie there for ever
    spare = Connection(room_bytes=0)
    assert not spare.is_stuck(10**9, 9_000_000, 2.0, 1.0)  # acknowledged what wasn't counted: no credit for later
    spare.sent_bytes = 10_000_000
    assert [spare.is_stuck(10**9, 9_000_000, 2.0, now_s) for now_s in (1.1, 3.2)] == [False, True]


def test_connections_beyond_the_limit_are_refused_and_others_go_on():
    told = []
    with ExitStack() as stack:
        server = stack.enter_context(ZmqServer("tcp://127.0.0.1:0", limits=Limits(connections=4), tell=told.append))
        with ZmqClient(server.address) as client:
            client.send(b"first")
            first = server.recv(WAIT_S)
            server.admit(first.peer)
            host, port = server.address.removeprefix("tcp://").split(":")
            crowd = [socket.create_connection((host, int(port))) for _ in range(20)]
            until(lambda: told, "nobody was refused")
            assert told[0] == "refused a connection: 4 are there already"
            server.send(first.peer, b"you")
            answer = client.recv(WAIT_S)
            assert answer is not None and answer.header == b"you"
            for stranger in crowd:
                stranger.close()
            talk_later = ZmqClient(server.address)
            with talk_later:
                talk_later.send(b"later")
                received = server.recv(WAIT_S)
                assert received is not None and received.header == b"later"


def test_strangers_that_take_every_place_keep_nobody_out(keys):
    """They need no key for that. Who was admitted stays, who comes gets in; strangers are closed, the oldest first."""
    limits = Limits(connections=4, stranger_bytes=256 * 1024)
    with ExitStack() as stack:
        server = stack.enter_context(ZmqServer("tcp://127.0.0.1:0", keys=load_server_keys(keys), limits=limits))
        first = stack.enter_context(ZmqClient(server.address, keys=load_client_keys(keys, "worker")))
        talk(server, first)
        first.send(b"admit me")
        admitted = server.recv(WAIT_S).peer
        server.admit(admitted)
        host, port = server.address.removeprefix("tcp://").split(":")
        crowd = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(8)]
        crowd[4].settimeout(WAIT_S)
        with contextlib.suppress(ConnectionResetError):
            while crowd[4].recv(4096):  # its greeting, and then its end: three places are left to eight
                pass
        talk(server, stack.enter_context(ZmqClient(server.address, keys=load_client_keys(keys, "second"))))
        server.send(admitted, b"you")
        answer = first.recv(WAIT_S)
        assert answer is not None and answer.header == b"you" and first.num_broken == 0


def test_a_peer_that_is_cut_off_is_gone_and_others_are_not(keys):
    with ExitStack() as stack:
        server = stack.enter_context(ZmqServer("tcp://127.0.0.1:0", keys=load_server_keys(keys)))
        with ZmqClient(server.address, keys=load_client_keys(keys, "worker")) as other:
            other.send(b"other")
            peer = server.recv(WAIT_S).peer
            context = zmq.Context()
            bad = context.socket(zmq.DEALER)
            mine = load_client_keys(keys, "second")
            bad.curve_serverkey, bad.curve_publickey, bad.curve_secretkey = mine.server, mine.public, mine.secret
            bad.linger, bad.reconnect_ivl = 0, -1
            monitor = bad.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            bad.connect(server.address)
            bad.send(b"bad")
            received = server.recv(WAIT_S)
            server.cut_off(peer)  # not the sender of the last message: nothing happens
            assert not monitor.poll(200)
            server.cut_off(received.peer)
            assert monitor.poll(int(WAIT_S * 1000))
            context.destroy(linger=0)
            server.send(peer, b"still")
            assert other.recv(WAIT_S).header == b"still"


def test_a_guard_that_fails_ends_the_servers_loop(monkeypatch):
    def fails(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("asgd.net.door.Door._look", fails)
    with ZmqServer("tcp://127.0.0.1:0") as server, pytest.raises(RunError, match=r"guards .* ZeroDivisionError: a def"):
        until(lambda: server.recv(0.0) is not None, "nothing was said")


def test_no_thread_and_no_descriptor_is_left(keys):
    def once():
        with ExitStack() as stack:
            server = stack.enter_context(ZmqServer("tcp://127.0.0.1:0", keys=load_server_keys(keys)))
            talk(server, stack.enter_context(ZmqClient(server.address, keys=load_client_keys(keys, "worker"))))

    once()
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(3):
        once()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) <= before
