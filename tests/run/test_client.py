"""The client's side of the conversation, against a scripted server over the in-process transport."""

from __future__ import annotations

import threading

import pytest

from asgd.config import load_config
from asgd.errors import Interrupted, RunError
from asgd.net.inprocess import InProcessHub
from asgd.net.messages import Job, NoSnapshot, Ping, Pong, Refused, Stop, Welcome, decode_request, encode
from asgd.run.client import Connection, Refusal
from asgd.run.signals import StopRequests

CONFIG = load_config({"budget": {"versions": 1}, "cluster": {"start_timeout_s": 2.0, "server_timeout_s": 1.0}})
WELCOME = Welcome(worker=3, payload_bytes=4, run="r", time_s=1.5, sent_s=100.0, incarnation=0)


def connection(hub, stops=None, config=CONFIG):
    return Connection(hub.client(), "in process", config, "worker", -1, "layout", 4, stops or StopRequests())


def serve(server, *replies):
    """Answer one request after the other with a list of (message, payload)."""

    def run():
        for messages in replies:
            received = server.recv(5.0)
            assert received is not None
            for message, payload in messages:
                server.send(received.peer, encode(message), payload)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_hello_is_said_again_while_the_server_asks_for_it():
    hub = InProcessHub()
    with hub.server() as server:
        thread = serve(server, [(Refused("worker 0 is there already", True), None)], [(WELCOME, None)])
        assert connection(hub).hello() == WELCOME
        thread.join(5.0)


def test_several_refusals_of_old_messages_do_not_spoil_the_welcome():
    """A server that was restarted answers each message that had been waiting for it with a refusal of its own."""
    hub = InProcessHub()
    again = (Refused("you are not known here (any more): say hello", True), None)
    job = (Job(7, 2, 101.0, -1), memoryview(b"abcd"))
    with hub.server() as server:
        client = connection(hub)
        thread = serve(server, [again, again, again, (WELCOME, None), job])
        assert client.hello() == WELCOME
        reply, received, _ = client.wait()
        while isinstance(reply, Welcome):
            reply, received, _ = client.wait()
        assert reply == Job(7, 2, 101.0, -1) and received.payload_bytes == 4
        thread.join(5.0)


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [(Refused("another layout", False), "refused us: another layout"), (Stop("over"), "has stopped: over")],
)
def test_a_final_no_is_an_error(reply, sentence):
    hub = InProcessHub()
    with hub.server() as server:
        thread = serve(server, [(reply, None)])
        with pytest.raises(Refusal, match=sentence):
            connection(hub).hello()
        thread.join(5.0)


def test_silence_has_a_limit():
    hub = InProcessHub()
    with hub.server():
        with pytest.raises(RunError, match=r"no server answers at in process \(waited 2 s\)"):
            connection(hub).hello()
        with pytest.raises(RunError, match="has not answered for 1 s"):
            connection(hub).wait()


def test_a_waiting_client_gives_signs_of_life():
    hub = InProcessHub()
    with hub.server() as server:
        client = connection(hub)
        thread = serve(server, [(Pong(-1), None)], [(NoSnapshot(True), None)])
        assert client.wait()[0] == NoSnapshot(True)
        thread.join(5.0)


def test_pings_are_pings():
    hub = InProcessHub()
    with hub.server() as server:
        with pytest.raises(RunError):
            connection(hub).wait()
        assert decode_request(server.recv(1.0).header) == Ping()


def test_a_stop_request_ends_a_wait():
    hub, stops = InProcessHub(), StopRequests()
    stops.ask("interrupted by SIGINT")
    with hub.server(), pytest.raises(Interrupted, match="SIGINT"):
        connection(hub, stops).wait()


def test_a_cancelled_job_that_is_kept_is_forgotten():
    hub = InProcessHub()
    with hub.server() as server:
        client = connection(hub)
        job = (Job(7, 2, 101.0, -1), memoryview(b"abcd"))
        thread = serve(server, [job, (Job(8, 2, 101.0, -1), memoryview(b"abcd"))])
        client.send(Ping())
        for _ in range(2):
            client.hold(client.wait(until_s=float("inf")))
        client.forget(7)
        assert client.wait()[0] == Job(8, 2, 101.0, -1)
        thread.join(5.0)
