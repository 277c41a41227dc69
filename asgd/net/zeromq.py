"""Messages between processes and machines over ZeroMQ: ROUTER at the server, DEALER at a client.

What can be lost, doubled or reordered, and why not here:
- Lost. ROUTER drops what it can't route; with ROUTER_MANDATORY it raises, and so does `send`: PeerGone. A full queue
  would block or drop; we never block, and raise PeerGone when more than MAX_QUEUED_MESSAGES to one peer are unread.
  What is on its way when a connection breaks or a process dies is lost, all of a message or nothing of it: ZeroMQ
  delivers multipart messages whole. No transport can change that; jobs have leases, and a lost one is recorded as lost.
- Doubled. Never: ZeroMQ doesn't resend. A client whose connection broke reconnects by itself, and is a new peer to the
  server with a new identity; the protocol above must greet it anew, and old answers find no job.
- Reordered. Never between one client and the server: one connection, one queue each way. Between clients there is no
  order.
- Mixed. Identities are assigned by libzmq and unique in a ROUTER's life, and handover is off: no client can take over
  the identity of another.

Limits: a header of MAX_HEADER_BYTES, frames of FRAME_BYTES (a longer frame closes the connection before it is buffered:
ZMQ_MAXMSGSIZE), payloads of `max_payload_bytes` (refused on arrival with BadMessage). What libzmq doesn't bound, the
number of connections, the frames of one message, and the bytes that a peer leaves unread, is bounded by door.py (the
latter two on tcp only).

Keys: with them, CURVE encrypts every frame, the server proves who it is, and a client that isn't in the server's list
doesn't get as far as the socket. libzmq itself would then try again for ever, or do nothing at all; here a client
listens to libzmq's monitor, and `recv` raises KeyRefused with the reason.

Signals: a handler that raises within `send` or `recv` leaves half a message in the socket, and what follows is garbage.
Let handlers set a flag, and wake `recv` by a descriptor (signal.set_wakeup_fd).
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from asgd.errors import ConfigError, RunError
from asgd.net.addresses import check_address, numeric
from asgd.net.door import ZAP_DOMAIN, Connection, Door, Limits, borrowed, shut
from asgd.net.endpoint import MAX_FRAME_BYTES, Endpoint
from asgd.net.keys import ClientKeys, ServerKeys
from asgd.net.messages import MAX_HEADER_BYTES
from asgd.net.transport import (
    DEFAULT_MAX_PAYLOAD_BYTES,
    MAX_QUEUED_MESSAGES,
    BadMessage,
    KeyRefused,
    PeerGone,
    Received,
)

_CURVE_BYTES: Final = 33  # that encryption adds to a frame
# A server that dies breaks a handshake or two; so many in a row, 50 ms apart, are no accident.
_FAILED_HANDSHAKES: Final = 20
_HANDSHAKES: Final = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class ZmqServer(Endpoint):
    """A ROUTER socket bound to `address`: the server's end of the ZeroMQ transport.

    Arguments: `address` "tcp://HOST:PORT" (HOST an interface's address, "*" for all; PORT 0 takes a free one, and
    `.address` says which) or "ipc://PATH"; `max_payload_bytes` the largest payload sent or received, in bytes; `keys`
    its secret and whom it lets in, None for neither encryption nor authentication; `limits` on what peers may do;
    `tell` takes a line about each thing refused before it got to be a message, from another thread.
    Raises ConfigError for an address that can never be listened at, RunError for one that is in use.

    >>> with ZmqServer("tcp://127.0.0.1:0") as server, ZmqClient(server.address) as client:
    ...     client.send(b"hello", memoryview(b"payload"))
    ...     received = server.recv(timeout_s=5.0)
    >>> received.header, received.payload_bytes
    (b'hello', 7)
    """

    def __init__(
        self,
        address: str,
        *,
        max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES,
        keys: ServerKeys | None = None,
        limits: Limits | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        scheme, host = check_address(address, listening=True)
        super().__init__(zmq.ROUTER, max_payload_bytes)
        limits = limits or Limits()
        self._path, self._inode = "", -1
        self._last_peer = b""
        self._admitted: dict[bytes, Connection] = {}
        self._max_admitted = 2 * limits.connections
        self._door: Door | None = None
        try:
            self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
            self._socket.setsockopt(zmq.RCVHWM, limits.messages)
            if keys is not None:
                self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES + _CURVE_BYTES)
                self._socket.setsockopt(zmq.CURVE_SERVER, 1)
                self._socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
                self._socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
                self._names_peers = True
            message_bytes = MAX_HEADER_BYTES + max_payload_bytes + max_payload_bytes // 1024
            accepted = None if keys is None else keys.accepted
            self._door = Door(self._context, self._socket, accepted, limits, message_bytes, tell)
            if scheme == "tcp":
                self._prepare_tcp(host)
                bound = address if host == "*" else numeric(address, host)
            else:
                bound = address
            self._socket.bind(bound)
            if scheme == "ipc" and not host.startswith("@"):
                self._path, self._inode = os.path.abspath(host), os.lstat(host).st_ino
            self._address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        except zmq.ZMQError as error:
            self.close()
            if error.errno == errno.EADDRINUSE:
                raise RunError(f"cannot listen at {address}: the address is in use") from None
            raise ConfigError(f"cannot listen at {address}: {zmq.strerror(error.errno or 0).lower()}") from None
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """Where clients connect to."""
        return self._address

    def close(self) -> None:
        """Send what is queued, for at most LINGER_S seconds, and close; closing twice is allowed."""
        path, self._path = self._path, ""
        if path:  # libzmq leaves the file behind; while we listen nobody else can have made one of that name
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(path).st_ino == self._inode:
                    os.unlink(path)
        door, self._door = self._door, None
        if door is not None:
            door.close()
        super().close()

    def recv(self, timeout_s: float, wake: Sequence[int] = ()) -> Received | None:
        """See ServerTransport.recv."""
        if self._door is not None and self._door.failure is not None:
            raise RunError(self._door.failure)
        before = self.bytes_in
        try:
            received = self._recv(timeout_s, wake, with_peer=True)
        except BadMessage as error:
            self._last_peer = error.peer
            raise
        finally:
            if self._door is not None and self.bytes_in > before:
                self._door.has_read(self._source, self.bytes_in - before)
        if received is not None:
            self._last_peer = received.peer
        return received

    def admit(self, peer: bytes) -> None:
        """See ServerTransport.admit."""
        if self._door is None or peer != self._last_peer:
            return
        if len(self._admitted) >= self._max_admitted:
            self._admitted = {each: known for each, known in self._admitted.items() if not known.is_closed}
        known = self._door.admit(self._source)
        if known is not None:
            self._admitted[peer] = known

    def cut_off(self, peer: bytes) -> None:
        """See ServerTransport.cut_off."""
        if peer != self._last_peer:
            return
        with borrowed(self._source) as connection:
            # libzmq tells this socket of a lost connection before it gives its descriptor back. So while the peer can
            # still be sent to, the descriptor that we hold now is its own, and not that of somebody who came later.
            self._socket.getsockopt(zmq.EVENTS)
            try:
                self._socket.send_multipart([peer, b""], flags=zmq.NOBLOCK)
            except zmq.Again:
                pass
            except zmq.ZMQError:
                return
            if connection is not None:
                shut(connection)

    def send(self, peer: bytes, header: bytes, payload: memoryview | None = None) -> None:
        """See ServerTransport.send."""
        known, count = self._admitted.get(peer), len(header) + (0 if payload is None else payload.nbytes)
        if known is not None:
            known.sent_bytes += count
        try:
            self._send([peer], header, payload)
        except zmq.Again:
            if known is not None:
                known.sent_bytes -= count
            raise PeerGone(f"peer {peer.hex()} has left more than {MAX_QUEUED_MESSAGES} messages unread") from None
        except zmq.ZMQError as error:
            if error.errno == errno.EHOSTUNREACH:
                raise PeerGone(f"peer {peer.hex()} isn't connected") from None
            raise


class ZmqClient(Endpoint):
    """A DEALER socket connected to `address`: a worker's or evaluator's end of the ZeroMQ transport.

    Connecting goes on in the background: with nobody listening, `send` queues and `recv` returns None at its time-out,
    until a server comes up. `keys`: of a server that asks for them; with None nothing is encrypted or proved.
    Raises ConfigError for a malformed address, RunError for a host name without an address.
    """

    def __init__(
        self,
        address: str,
        *,
        max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES,
        keys: ClientKeys | None = None,
    ) -> None:
        scheme, host = check_address(address, listening=False)
        super().__init__(zmq.DEALER, max_payload_bytes)
        self.address = address
        self._num_broken = 0
        self._has_keys = keys is not None
        self._failed_handshakes = 0
        self._monitor: zmq.Socket[bytes] | None = None
        try:
            if scheme == "tcp":
                self._prepare_tcp(host)
                address = numeric(address, host)
            if keys is not None:
                self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES + _CURVE_BYTES)
                self._socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server)
                self._socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
                self._socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
            self._monitor = self._socket.get_monitor_socket(_HANDSHAKES | zmq.EVENT_DISCONNECTED)
            self._monitor.linger = 0
            self._poller = zmq.Poller()
            self._poller.register(self._socket, zmq.POLLIN)
            self._poller.register(self._monitor, zmq.POLLIN)
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"cannot connect to {address}: {zmq.strerror(error.errno or 0).lower()}") from None
        except BaseException:
            self.close()
            raise

    @property
    def num_broken(self) -> int:
        """See ClientTransport.num_broken."""
        self._hear()
        return self._num_broken

    def recv(self, timeout_s: float) -> Received | None:
        """See ClientTransport.recv. Raises KeyRefused when the handshake fails for a reason that stays."""
        return self._recv(timeout_s, (), with_peer=False)

    def _wait(self, timeout_s: float, wake: Sequence[int]) -> bool:
        """As above, hearing meanwhile of handshakes."""
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            ready = dict(self._poller.poll(math.ceil(left_s * 1000)))
            if self._monitor in ready:
                self._hear()
            if self._socket in ready:
                return True
            if time.monotonic() >= deadline:
                return False

    def _hear(self) -> None:
        """Take in how handshakes ended and connections broke; KeyRefused when trying again can't help."""
        assert self._monitor is not None
        while True:
            try:
                event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return
            if event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._failed_handshakes = 0
                continue
            if event["event"] == zmq.EVENT_DISCONNECTED:
                self._num_broken += 1
                continue
            self._failed_handshakes += 1
            if event["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                why = "does not have our key in its list: its accepted/ needs this client's .pub"
            elif event["event"] == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and self._has_keys:
                why = "does not encrypt, or is no asgd server: it must have keys too, or this client none"
            elif event["event"] == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                why = "lets in nobody without a key, or is no asgd server: give this client keys (security.keys)"
            elif self._failed_handshakes >= _FAILED_HANDSHAKES:
                why = "breaks off every handshake: " + (
                    "server.pub here is not the key of that server, or it has too many connections"
                    if self._has_keys
                    else "it lets in nobody without a key, has too many connections, or is no asgd server"
                )
            else:
                continue
            self._linger_ms = 0  # nobody will ever take what waits to be sent
            raise KeyRefused(f"the server at {self.address} {why}")

    def send(self, header: bytes, payload: memoryview | None = None) -> None:
        """See ClientTransport.send."""
        try:
            self._send([], header, payload)
        except zmq.Again:
            self._hear()  # after a handshake that can't succeed libzmq takes nothing more
            raise PeerGone(
                f"the server at {self.address} can't be reached or doesn't read:"
                f" more than {MAX_QUEUED_MESSAGES} messages wait"
            ) from None

    def close(self) -> None:
        """Send what is queued, for at most LINGER_S seconds, and close; closing twice is allowed."""
        if self._monitor is not None and not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close()
        super().close()
