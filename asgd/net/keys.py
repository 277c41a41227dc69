"""Key files: one secret for the server, one for each worker (or for several), and the list of those let in.

    DIR/server.key         the server's secret: only on the server's machine
    DIR/server.pub         its public half: on every machine
    DIR/accepted/NAME.pub  the public halves of the workers (and evaluators) that the server lets in
    DIR/NAME.key           the secret of such a client: on its machine

Each file holds one line, a CURVE25519 key in Z85 (40 characters). A secret is readable by its owner alone (0600, in a
directory of 0700), or refused. The objects here hold keys and never show them: not in repr, not in an error.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

import zmq

from asgd.errors import ConfigError, RunError

_Z85 = re.compile(rb"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class ServerKeys:
    """What the server needs: its secret, and the public keys that it lets in, each with its name."""

    def __init__(self, secret: bytes, accepted: dict[bytes, str]) -> None:
        self.secret, self.accepted = secret, accepted

    def __repr__(self) -> str:
        return f"ServerKeys({len(self.accepted)} accepted)"


class ClientKeys:
    """What a worker or evaluator needs: its own secret, its public half, and the server's public key."""

    def __init__(self, secret: bytes, public: bytes, server: bytes) -> None:
        self.secret, self.public, self.server = secret, public, server

    def __repr__(self) -> str:
        return "ClientKeys(...)"


def check_name(name: str) -> str:
    """The name of a client's key if it can be one; ConfigError otherwise."""
    if _NAME.fullmatch(name) is None or name == "server":
        raise ConfigError(
            f"{name!r} can't be the name of a key; allowed are letters, digits, _, . and - (64 at most), not 'server'"
        )
    return name


def make_keys(directory: Path, names: Sequence[str] = ("worker",), *, overwrite: bool = False) -> list[Path]:
    """Make the server's key and one for each name, and return the files.

    Args:
        directory: made with mode 0700 if it isn't there; one that others can write to is refused.
        names: of the clients' keys; several workers may use one, but a key of its own can be taken away alone.
        overwrite: replace files that are there; without it, a server's key that is there is kept (so that names can
            be added later), and a client's is an error.

    Errors: ConfigError for a file that is there or a name that can't be one, RunError when the files can't be written.
    """
    secrets = [directory / "server.key", *(directory / f"{check_name(name)}.key" for name in names)]
    publics = [directory / "server.pub", *(directory / "accepted" / f"{name}.pub" for name in names)]
    keeps_server = secrets[0].exists() and not overwrite
    if keeps_server:
        _read(secrets[0], secret=True)
        secrets, publics = secrets[1:], publics[1:]
    for path in [*secrets, *publics] if not overwrite else []:
        if os.path.lexists(path):
            raise ConfigError(f"{path} is there already; it is replaced only with --overwrite")
    try:
        for folder in (directory, directory / "accepted"):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, parents=True)
                folder.chmod(0o700)  # whatever the umask is
            _check_folder(folder)
        for secret_path, public_path in zip(secrets, publics, strict=True):
            public, secret = zmq.curve_keypair()
            _write(secret_path, secret, 0o600)
            _write(public_path, public, 0o644)
    except OSError as error:
        raise RunError(f"the keys can't be written to {directory}: {(error.strerror or str(error)).lower()}") from None
    return [*secrets, *publics]


def load_server_keys(directory: Path) -> ServerKeys:
    """The server's secret and its list.

    Errors: ConfigError naming the file that is missing, malformed or open to others, or the directory that others can
    write to.
    """
    secret = _read(directory / "server.key", secret=True)
    for folder in (directory, directory / "accepted"):
        if folder.is_dir():
            _check_folder(folder)
    listed = sorted((directory / "accepted").glob("*.pub"))
    if not listed:
        raise ConfigError(
            f"{directory / 'accepted'} holds no *.pub: nobody would be let in; make keys with `asgd keys`"
        )
    return ServerKeys(secret, {_read(path, secret=False): path.stem for path in listed})


def load_client_keys(directory: Path, name: str) -> ClientKeys:
    """The secret of a worker or evaluator, and the server's public key; ConfigError as `load_server_keys`."""
    secret = _read(directory / f"{check_name(name)}.key", secret=True)
    return ClientKeys(secret, zmq.curve_public(secret), _read(directory / "server.pub", secret=False))


def _check_folder(folder: Path) -> None:
    """ConfigError where others could put keys of theirs."""
    if folder.stat().st_mode & 0o022:
        raise ConfigError(f"{folder} can be written by others; allowed is a directory of mode 0700 or 0755")


def _write(path: Path, key: bytes, mode: int) -> None:
    """Write a key beside its place and move it there, so that it is never there in part or with another mode."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(file, "wb") as stream:
            os.fchmod(file, mode)  # whatever the umask is
            stream.write(key + b"\n")
            stream.flush()
            os.fsync(file)
        beside.rename(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()


def _read(path: Path, *, secret: bool) -> bytes:
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            content = stream.read(256).strip()
    except FileNotFoundError:
        raise ConfigError(f"there is no key {path}; make keys with `asgd keys DIR`, or copy it here") from None
    except OSError as error:
        raise ConfigError(f"the key {path} can't be read: {(error.strerror or str(error)).lower()}") from None
    if secret and stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError(
            f"the key {path} is open to others (mode {stat.S_IMODE(status.st_mode):04o}); allowed is 0600"
        )
    if _Z85.fullmatch(content) is None:
        raise ConfigError(f"{path} is not a key; allowed is one line of 40 characters, as `asgd keys` writes it")
    return content
