"""The client's side of the conversation, against a scripted server over the in-process transport."""

from __future__ import annotations

import threading

import pytest
from msgspec.structs import replace

from asgd.config import load_config
from asgd.errors import Interrupted, RunError
from asgd.net.inprocess import InProcessHub
from asgd.net.messages import (
    Gradient,
    Hello,
    Job,
    NoSnapshot,
    Ping,
    Pong,
    Refused,
    Stop,
    Welcome,
    decode_request,
    encode,
)
from asgd.run.client import Connection, Refusal
from asgd.run.signals import StopRequests

CONFIG = load_config({"budget": {"versions": 1}, "cluster": {"start_timeout_s": 2.0, "server_timeout_s": 1.0}})
QUICK = load_config({"budget": {"versions": 1}, "cluster": {"start_timeout_s": 0.4, "server_timeout_s": 0.6}})
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


@pytest.mark.parametrize(
    "reply", [Refused("\x1b[2J\x1b]0;owned\x07\u202e", False), Stop("\x1b[2J\x1b]0;owned\x07\u202e")]
)
def test_a_servers_reason_cannot_steer_a_terminal(reply):
    hub = InProcessHub()
    with hub.server() as server:
        thread = serve(server, [(replace(WELCOME, run="\x1b[2J"), None), (reply, None)])
        client = connection(hub)
        assert client.hello() == replace(WELCOME, run="?[2J")
        got = client.wait()
        assert type(got.reply) is type(reply) and got.reply.reason.isprintable() and "owned" in got.reply.reason
        thread.join(5.0)
        thread = serve(server, [(reply, None)])
        with pytest.raises(Refusal) as caught:
            connection(hub).hello()
        assert str(caught.value).isprintable() and "owned" in str(caught.value)
        thread.join(5.0)


def test_silence_has_a_limit():
    hub = InProcessHub()
    with hub.server():
        with pytest.raises(RunError, match=r"no server answers at in process \(waited 0.4 s\)"):
            connection(hub, config=QUICK).hello()
        with pytest.raises(RunError, match=r"has not answered for 0\.6 s"):
            connection(hub, config=QUICK).wait()


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
            connection(hub, config=QUICK).wait()
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


UNKNOWN = (Refused("you are not known here (any more): say hello", True), None)
AGAIN = Welcome(worker=3, payload_bytes=4, run="r", time_s=1.5, sent_s=200.0, incarnation=1)


def job_of(number, taken=-1):
    return (Job(number, 2, 101.0, taken), memoryview(b"abcd"))


def answer_to(number):
    return Gradient(number, 2, 1.0, 8, 0.1, 0.0, 0.0, 0.0)


class Scripted:
    """A server under the test's control, one message of the client after the other."""

    def __init__(self, server):
        self.server, self.peer = server, None

    def hears(self):
        received = self.server.recv(5.0)
        assert received is not None
        self.peer = received.peer
        return decode_request(received.header), b"".join(bytes(frame) for frame in received.payload)

    def says(self, *messages):
        for message, payload in messages:
            self.server.send(self.peer, encode(message), payload)

    def takes_back(self, *messages):
        """In a thread: say that the client isn't known, hear its hello, let it in."""

        def run():
            self.says(UNKNOWN)
            self.hello, _ = self.hears()
            self.says((AGAIN, None), *messages)

        thread = threading.Thread(target=run)
        thread.start()
        return thread


def let_in(hub, server, config=CONFIG, notes=None):
    client = Connection(
        hub.client(), "in process", config, "worker", -1, "layout", 4, StopRequests(), (notes or []).append
    )
    thread = serve(server, [(WELCOME, None)])
    assert client.hello() == WELCOME
    thread.join(5.0)
    return client


def test_a_client_that_is_not_known_any_more_comes_back_with_what_it_holds():
    hub, returned = InProcessHub(), []
    with hub.server() as server:
        client = let_in(hub, server)
        client.on_return = returned.append
        script, memory = Scripted(server), bytearray(b"1111")
        client.answer(answer_to(5), memoryview(memory))
        script.hears()
        client.before_work(6)
        memory[:] = b"2222"
        client.answer(answer_to(6), memoryview(memory))
        script.hears()
        client.at_work = 7
        script.says(job_of(8))
        client.hold(client.wait())
        thread = script.takes_back(job_of(9))
        assert client.wait(until_s=float("inf")).reply == job_of(9)[0]
        thread.join(5.0)
        assert isinstance(script.hello, Hello) and (script.hello.worker, script.hello.jobs) == (3, (5, 6, 7, 8))
        assert returned == [AGAIN]
        assert [script.hears() for _ in range(2)] == [(answer_to(5), b"1111"), (answer_to(6), b"2222")]
        assert client.wait().reply == job_of(8)[0], "what was kept is still there"


@pytest.mark.parametrize("sign", [job_of(8, taken=5), (Pong(5), None)], ids=["job", "pong"])
def test_an_answer_that_the_server_has_is_not_sent_again(sign):
    hub = InProcessHub()
    with hub.server() as server:
        client, script = let_in(hub, server), Scripted(server)
        client.answer(answer_to(5), memoryview(b"1111"))
        script.hears()
        script.says(sign)
        thread = script.takes_back((Stop("over"), None))
        while not isinstance(client.wait(until_s=float("inf")).reply, Stop):
            pass
        thread.join(5.0)
        assert script.hello.jobs in [(), (8,)]
        assert server.recv(0.0) is None


def test_a_stop_that_came_before_the_server_was_lost_is_heard():
    hub = InProcessHub()
    with hub.server() as server:
        client, script = let_in(hub, server), Scripted(server)
        client.send(Ping())
        script.hears()
        script.says(UNKNOWN, (Stop("over"), None))
        assert client.wait().reply == Stop("over")
        assert server.recv(0.0) is None, "no hello any more"


def test_a_server_that_does_not_take_us_back_in_time_is_an_error():
    hub, notes = InProcessHub(), []
    with hub.server() as server:
        client, script = let_in(hub, server, QUICK, notes), Scripted(server)
        client.send(Ping())
        script.hears()
        script.says(UNKNOWN)
        with pytest.raises(RunError, match=r"was lost \(you are not known here.*\) and did not come back within 0.6 s"):
            client.wait()


def test_one_that_may_have_any_number_takes_another_when_its_own_is_gone(monkeypatch):
    """It asks for its own first, more and more rarely."""
    monkeypatch.setattr("asgd.run.client.RETRY_AFTER_S", 0.02)
    monkeypatch.setattr("asgd.run.client.RETRY_AFTER_AT_MOST_S", 0.2)
    hub = InProcessHub()
    config = load_config({"budget": {"versions": 1}, "cluster": {"server_timeout_s": 20.0}})
    there = (Refused("worker 3 is there already", True), None)
    with hub.server() as server:
        client, hellos = let_in(hub, server, config), []

        def run():
            script = Scripted(server)
            script.hears()
            script.says(UNKNOWN)
            while not hellos or hellos[-1].worker == 3:
                hellos.append(script.hears()[0])
                script.says(there if hellos[-1].worker == 3 else (AGAIN, None))
            script.says((Stop("over"), None))

        thread = threading.Thread(target=run)
        thread.start()
        client.answer(answer_to(5), memoryview(b"1111"))
        assert client.wait().reply == Stop("over")
        thread.join(5.0)
    assert [hello.worker for hello in hellos] == [3] * (len(hellos) - 1) + [-1] and 3 <= len(hellos) <= 6
    assert hellos[0].jobs == (5,) and hellos[-1].jobs == ()
