"""Addresses of the ZeroMQ transport: tcp://HOST:PORT and ipc://PATH, checked before libzmq sees them.

libzmq says little about a bad address, and does harm with some: an `ipc` address is a file, and libzmq would silently
take over the file of a running server, or delete a user's file of that name. Both are refused here.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat
from typing import Literal

import zmq

from asgd.errors import ConfigError, RunError

_TCP = re.compile(r"tcp://(?P<host>\*|\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\s:/\[\]*@;,]+):(?P<port>\d{1,5})")
_ALLOWED = "allowed are tcp://HOST:PORT and ipc://PATH"


def check_address(address: str, *, listening: bool) -> tuple[Literal["tcp", "ipc"], str]:
    """The scheme and the host or path of an address that can be used; ConfigError or RunError otherwise."""
    if address.startswith("ipc://"):
        path = address.removeprefix("ipc://")
        _check_path(address, path, listening=listening)
        return "ipc", path
    match = _TCP.fullmatch(address)
    if match is None:
        raise ConfigError(f"{address!r} is not an address; {_ALLOWED}")
    port, host = int(match["port"]), match["host"]
    if port > 65535 or (port == 0 and not listening):
        raise ConfigError(f"{address!r} has port {port}; allowed are {0 if listening else 1} to 65535")
    if host == "*" and not listening:
        raise ConfigError(f"{address!r} names every host; a client needs the server's, such as tcp://127.0.0.1:{port}")
    return "tcp", host


def _check_path(address: str, path: str, *, listening: bool) -> None:
    size = len(os.fsencode(path))
    if not path or path == "*":
        raise ConfigError(f"{address!r} names no file; {_ALLOWED}")
    if size > zmq.IPC_PATH_MAX_LEN:
        raise ConfigError(
            f"{address!r} has a path of {size} bytes; the system allows {zmq.IPC_PATH_MAX_LEN}, so choose a shorter one"
        )
    if not listening or path.startswith("@"):  # Linux's abstract names are no files, and libzmq reports theirs in use
        return
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        raise ConfigError(f"cannot listen at {address}: there is no directory {directory}")
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise ConfigError(f"cannot listen at {address}: {path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return  # left behind by a server that died; libzmq replaces it
        except OSError as error:
            raise RunError(f"cannot listen at {address}: {(error.strerror or str(error)).lower()}") from None
    raise RunError(f"cannot listen at {address}: the address is in use")


def is_private(address: str) -> bool:
    """Whether this machine alone can reach an address: a file (ipc), or tcp at a loopback address or a name of one.

    An abstract name (ipc://@NAME) has no owner and no permissions, and counts as public.

    >>> [is_private(f"tcp://{host}:5555") for host in ("127.0.0.1", "[::1]", "*", "0.0.0.0", "10.0.0.1")]
    [True, True, False, False, False]
    >>> is_private("ipc://@name")
    False
    """
    scheme, host = check_address(address, listening=True)
    if scheme == "ipc":
        return not host.startswith("@")
    if host == "*":
        return False
    bare = host.strip("[]").partition("%")[0]
    try:
        number = bare if host.startswith("[") else numeric(address, host).split("//")[1].rpartition(":")[0]
        return ipaddress.ip_address(number).is_loopback
    except ValueError:
        return False


def numeric(address: str, host: str) -> str:
    """The address with its host name resolved: libzmq binds to numbers only, and never reports an unknown name."""
    if host.startswith("["):
        return address
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise RunError(f"cannot find the host of {address}: {(error.strerror or str(error)).lower()}") from None
    return f"tcp://{found[0][4][0]}:{address.rpartition(':')[2]}"
