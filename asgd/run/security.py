"""What a run's `[security]` means: which keys a role uses, where the server may listen, and the limits on its peers."""

from __future__ import annotations

from pathlib import Path

from asgd.config import Config
from asgd.errors import ConfigError
from asgd.net.addresses import is_private
from asgd.net.door import Limits
from asgd.net.keys import ClientKeys, ServerKeys, load_client_keys, load_server_keys

# Of a client that has given no sign yet of being one: a greeting, and room for the network's own buffers.
_STRANGER_BYTES = 256 * 1024
# Answers that a worker may have on their way; each is as long as the model, so this bounds the server's memory.
_MESSAGES = 8


def check_binding(config: Config, address: str) -> None:
    """Refuse to listen where others can reach us without keys, unless that is asked for.

    Errors: ConfigError naming the address and what is allowed; and what is wrong with the keys, if there are some.
    """
    if config.security.keys:
        server_keys(config)
    elif address != "ipc" and not config.security.insecure and not is_private(address):
        others = "every user of this machine" if address.startswith("ipc://") else "other machines"
        raise ConfigError(
            f"cannot listen at {address} without keys: {others} can reach it; make some with `asgd keys DIR` and "
            "set security.keys, or set security.insecure = true where everybody who can reach it may take part"
        )


def server_keys(config: Config) -> ServerKeys | None:
    """The server's keys, None without any; ConfigError naming the file that is wrong."""
    return load_server_keys(Path(config.security.keys)) if config.security.keys else None


def client_keys(config: Config) -> ClientKeys | None:
    """A worker's or evaluator's keys, None without any; ConfigError naming the file that is wrong."""
    return load_client_keys(Path(config.security.keys), config.security.key) if config.security.keys else None


def limits(config: Config) -> Limits:
    """What the server lets its peers do."""
    return Limits(connections=_max_peers(config), messages=_MESSAGES, stranger_bytes=_STRANGER_BYTES)


def most_clients(config: Config) -> int:
    """How many sessions the server keeps at once, and how many worker numbers there are."""
    return max(_max_peers(config), config.cluster.num_workers)


def _max_peers(config: Config) -> int:
    return config.security.max_peers or 2 * config.cluster.num_workers + 64


def warnings(config: Config, address: str) -> list[str]:
    """The lines that a server which anybody can reach begins with."""
    if config.security.keys or address == "ipc" or is_private(address):
        return []
    return [
        f"INSECURE: listening at {address} without keys (security.insecure = true): everybody who can reach this "
        "address can read the model, take part, and spoil the run; nothing is encrypted"
    ]
