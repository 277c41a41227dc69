"""The contenders of `asgd bench wire`: one server function and one worker function each, run in processes of their own.

All do the same exchange: a worker sends a gradient of P float32, the server does x.add_(g, alpha=-eta), and the worker
receives x. Every process computes with one thread and keeps its own buffers. The server counts exchanges for a stretch
of time after a warm-up, then checks that every element of x has taken exactly as many steps as it counted.

Legend: P parameters.
"""

from __future__ import annotations

import select
import socket
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.distributed import rpc

from asgd.errors import RunError
from asgd.net.keys import load_client_keys, load_server_keys, make_keys
from asgd.net.messages import Gradient, Job, Stop, check_payload, decode_reply, decode_request, encode
from asgd.net.zeromq import ZmqClient, ZmqServer

STEP_SIZE = 2.0**-20  # a power of two: with gradients of ones x is -steps * STEP_SIZE exactly, up to 2**24 steps
SILENCE_S = 30.0


@dataclass(frozen=True)
class Plan:
    """One measurement: P parameters, the workers, exchanges to warm up, seconds to count, a private directory."""

    size_P: int
    num_workers: int
    warm_up: int
    seconds: float
    directory: str


@dataclass(frozen=True)
class Contender:
    """A way to exchange: `serve` announces its address and returns exchanges per second; `work` runs until stopped."""

    serve: Callable[[Plan, Callable[[str], None]], float]
    work: Callable[[Plan, int, str], None]


class _Server:
    """The server's vector x, its update, and the count of exchanges: a warm-up, then all until the time is over."""

    def __init__(self, plan: Plan) -> None:
        self.x_P = torch.zeros(plan.size_P)
        self.exchanges = 0
        self.rate = 0.0
        self._plan = plan
        self._start_s = 0.0

    def update(self, gradient_P: torch.Tensor) -> bool:
        """Take one step; True when the time is over, for good."""
        self.x_P.add_(gradient_P, alpha=-STEP_SIZE)
        self.exchanges += 1
        if self.exchanges <= self._plan.warm_up:
            self._start_s = time.perf_counter()
            return False
        elapsed_s = time.perf_counter() - self._start_s
        if not self.rate and elapsed_s >= self._plan.seconds:
            self.rate = (self.exchanges - self._plan.warm_up) / elapsed_s
        return self.rate > 0.0

    def checked_rate(self) -> float:
        """Exchanges per second; RunError unless every element of x has taken every step."""
        expected = -self.exchanges * STEP_SIZE
        if not bool((self.x_P == expected).all()):
            raise RunError(f"x isn't {expected} everywhere after {self.exchanges} exchanges: some bytes went astray")
        return self.rate


def _bytes_of(vector_P: torch.Tensor) -> memoryview:
    return vector_P.numpy().data.cast("B")


# (a) Our transport, with the protocol's own messages.


def _serve_zeromq(plan: Plan, announce: Callable[[str], None], *, tcp: bool, encrypted: bool = False) -> float:
    keys_at = Path(plan.directory) / "keys"
    if encrypted:
        make_keys(keys_at)
    keys = load_server_keys(keys_at) if encrypted else None
    state, gradient_P, running = _Server(plan), torch.zeros(plan.size_P), plan.num_workers
    x_bytes, gradient_bytes = _bytes_of(state.x_P), _bytes_of(gradient_P)
    with ZmqServer("tcp://127.0.0.1:0" if tcp else f"ipc://{plan.directory}/wire", keys=keys) as server:
        announce(server.address)
        while running:
            received = server.recv(SILENCE_S)
            if received is None:
                raise RunError(f"no worker has sent anything for {SILENCE_S} s")
            check_payload(decode_request(received.header), received.payload_bytes, len(gradient_bytes))
            received.copy_payload_into(gradient_bytes)
            peer = received.peer
            del received  # the memory of its frames serves the next ones
            if state.update(gradient_P):
                server.send(peer, encode(Stop("measured")))
                running -= 1
            else:
                server.send(peer, encode(Job(state.exchanges, state.exchanges, 0.0, -1)), x_bytes)
    return state.checked_rate()


def _work_zeromq(plan: Plan, worker: int, address: str, *, encrypted: bool = False) -> None:
    keys = load_client_keys(Path(plan.directory) / "keys", "worker") if encrypted else None
    x_bytes, gradient_bytes = _bytes_of(torch.zeros(plan.size_P)), _bytes_of(torch.ones(plan.size_P))
    job = Job(0, 0, 0.0, -1)
    with ZmqClient(address, keys=keys) as client:
        while True:
            client.send(encode(Gradient(job.job, job.version, 0.0, 1, 0.0, 0.0, 0.0, 0.0)), gradient_bytes)
            received = client.recv(SILENCE_S)
            if received is None:
                raise RunError(f"the server has sent nothing for {SILENCE_S} s")
            reply = decode_reply(received.header)
            if not isinstance(reply, Job):
                return
            job = reply
            received.copy_payload_into(x_bytes)
            del received


# (b) PyTorch's RPC, as in its parameter-server tutorials: the update under a lock, returning the parameters. The tensor
# is sent from where it lies while other workers may step on it: faster than a copy, and what the tutorials do.

_rpc_lock = threading.Lock()
_rpc_state: _Server | None = None


def _rpc_update(gradient_P: torch.Tensor) -> torch.Tensor:
    with _rpc_lock:
        if _rpc_state is None:
            raise RunError("the RPC server has no state")
        return torch.empty(0) if _rpc_state.update(gradient_P) else _rpc_state.x_P


def _join_rpc(plan: Plan, name: str, rank: int, address: str) -> None:
    warnings.filterwarnings("ignore", "You are using a Backend", UserWarning)  # RPC's own use of torch.distributed
    options = rpc.TensorPipeRpcBackendOptions(init_method=address, rpc_timeout=SILENCE_S)
    rpc.init_rpc(name, rank=rank, world_size=plan.num_workers + 1, rpc_backend_options=options)


def _serve_rpc(plan: Plan, announce: Callable[[str], None]) -> float:
    global _rpc_state  # functions called by RPC are found by name; so is their state
    _rpc_state = state = _Server(plan)
    address = f"file://{plan.directory}/rpc"
    announce(address)
    _join_rpc(plan, "server", 0, address)
    rpc.shutdown()  # waits for the workers
    return state.checked_rate()


def _work_rpc(plan: Plan, worker: int, address: str) -> None:
    gradient_P = torch.ones(plan.size_P)
    _join_rpc(plan, f"worker{worker}", worker + 1, address)
    while rpc.rpc_sync("server", _rpc_update, args=(gradient_P,)).numel():
        pass
    rpc.shutdown()


# (c) Plain TCP sockets and buffers made once: the least that one can do.


def _receive_into(connection: socket.socket, view: memoryview) -> bool:
    """Fill the view; False when the other side closed before the first byte."""
    done = 0
    while done < len(view):
        size = connection.recv_into(view[done:])
        if not size:
            if done:
                raise RunError("a connection closed within a vector")
            return False
        done += size
    return True


def _serve_sockets(plan: Plan, announce: Callable[[str], None]) -> float:
    state, gradient_P = _Server(plan), torch.zeros(plan.size_P)
    x_bytes, gradient_bytes = _bytes_of(state.x_P), _bytes_of(gradient_P)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(SILENCE_S)
        announce(f"127.0.0.1:{listener.getsockname()[1]}")
        connections = []
        for _ in range(plan.num_workers):
            connection = stack.enter_context(listener.accept()[0])
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(SILENCE_S)
            connections.append(connection)
        while connections:
            ready, _, _ = select.select(connections, [], [], SILENCE_S)
            if not ready:
                raise RunError(f"no worker has sent anything for {SILENCE_S} s")
            for connection in ready:
                if not _receive_into(connection, gradient_bytes):
                    raise RunError("a worker left before it was told to")
                if state.update(gradient_P):
                    connections.remove(connection)
                    connection.close()
                else:
                    connection.sendall(x_bytes)
    return state.checked_rate()


def _work_sockets(plan: Plan, worker: int, address: str) -> None:
    x_bytes, gradient_bytes = _bytes_of(torch.zeros(plan.size_P)), _bytes_of(torch.ones(plan.size_P))
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=SILENCE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(gradient_bytes)
        while _receive_into(connection, x_bytes):
            connection.sendall(gradient_bytes)


RPC = "PyTorch RPC"
CONTENDERS = {
    "asgd ZeroMQ ipc": Contender(partial(_serve_zeromq, tcp=False), _work_zeromq),
    "asgd ZeroMQ tcp": Contender(partial(_serve_zeromq, tcp=True), _work_zeromq),
    "asgd ZeroMQ tcp, keys": Contender(
        partial(_serve_zeromq, tcp=True, encrypted=True), partial(_work_zeromq, encrypted=True)
    ),
    RPC: Contender(_serve_rpc, _work_rpc),
    "TCP sockets": Contender(_serve_sockets, _work_sockets),
}
