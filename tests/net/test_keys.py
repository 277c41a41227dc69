"""Key files: made with the right modes, never overwritten unasked, refused with a sentence that doesn't show them."""

from __future__ import annotations

import os
import stat

import pytest

from asgd.errors import ConfigError, RunError
from asgd.net.keys import ClientKeys, ServerKeys, load_client_keys, load_server_keys, make_keys


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def keys(tmp_path):
    make_keys(tmp_path / "keys", ("a", "b"))
    return tmp_path / "keys"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_secrets_are_the_owners_alone_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        made = make_keys(tmp_path / "keys")
    finally:
        os.umask(before)
    folder = tmp_path / "keys"
    assert mode(folder) == mode(folder / "accepted") == 0o700
    assert {path.name: mode(path) for path in made} == {
        "server.key": 0o600,
        "worker.key": 0o600,
        "server.pub": 0o644,
        "worker.pub": 0o644,
    }
    assert sorted(path.name for path in folder.iterdir()) == ["accepted", "server.key", "server.pub", "worker.key"]


def test_what_was_made_can_be_loaded(keys):
    server, client = load_server_keys(keys), load_client_keys(keys, "a")
    assert sorted(server.accepted.values()) == ["a", "b"] and server.accepted[client.public] == "a"
    assert client.server == (keys / "server.pub").read_bytes().strip()
    assert client.secret != load_client_keys(keys, "b").secret


def test_nothing_is_overwritten_unasked_and_names_can_be_added(keys):
    before = {path: path.read_bytes() for path in keys.rglob("*.*")}
    with pytest.raises(ConfigError, match=r"a\.key is there already; it is replaced only with --overwrite"):
        make_keys(keys, ("c", "a"))
    assert {path: path.read_bytes() for path in keys.rglob("*.*")} == before
    assert [path.name for path in make_keys(keys, ("c",))] == ["c.key", "c.pub"]
    assert {path: path.read_bytes() for path in before} == before
    make_keys(keys, ("a",), overwrite=True)
    changed = {path.name for path in before if path.read_bytes() != before[path]}
    assert changed == {"server.key", "server.pub", "a.key", "a.pub"}


def test_a_link_in_a_keys_place_is_not_followed(keys, tmp_path):
    (tmp_path / "other").write_text("mine")
    (keys / "c.key").symlink_to(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"is there already"):
        make_keys(keys, ("c",))
    make_keys(keys, ("c",), overwrite=True)
    assert (tmp_path / "other").read_text() == "mine" and not (keys / "c.key").is_symlink()


@pytest.mark.parametrize("name", ["", "server", "a/b", "../x", ".a", "a b", "x" * 65])
def test_a_name_that_can_be_no_file_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="can't be the name of a key"):
        make_keys(tmp_path / "keys", (name,))
    assert not (tmp_path / "keys").exists()


def test_what_is_wrong_with_a_key_is_said_without_showing_it(keys):
    secret = (keys / "a.key").read_text().strip()
    (keys / "a.key").chmod(0o644)
    sentences = []
    with pytest.raises(ConfigError, match=r"a\.key is open to others \(mode 0644\); allowed is 0600") as caught:
        load_client_keys(keys, "a")
    sentences.append(str(caught.value))
    (keys / "a.key").chmod(0o600)
    for content in (secret[:-1], secret + "x", secret + "\n" + secret, "", "\0" * 40):
        (keys / "a.key").write_text(content)
        with pytest.raises(ConfigError, match=r"a\.key is not a key; allowed is one line of 40 characters") as caught:
            load_client_keys(keys, "a")
        sentences.append(str(caught.value))
    with pytest.raises(ConfigError, match=r"there is no key .*none\.key"):
        load_client_keys(keys, "none")
    assert not [sentence for sentence in sentences if secret[:8] in sentence]


def test_a_server_that_would_let_in_nobody_is_refused(keys):
    for path in (keys / "accepted").iterdir():
        path.unlink()
    with pytest.raises(ConfigError, match=r"accepted holds no \*\.pub"):
        load_server_keys(keys)


def test_keys_do_not_show(keys):
    server, client = load_server_keys(keys), load_client_keys(keys, "a")
    assert repr(server) == str(server) == "ServerKeys(2 accepted)" and isinstance(server, ServerKeys)
    assert repr(client) == str(client) == "ClientKeys(...)" and isinstance(client, ClientKeys)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"the keys can't be written to .*file"):
        make_keys(tmp_path / "file" / "keys")


def test_a_directory_that_others_can_write_to_is_refused(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ConfigError, match="open can be written by others"):
        make_keys(tmp_path / "open")
    assert not [*(tmp_path / "open").iterdir()]


@pytest.mark.parametrize("folder", [".", "accepted"])
def test_a_list_that_others_can_write_to_lets_nobody_in(tmp_path, folder):
    """Anybody on this machine could put his own key into it."""
    make_keys(tmp_path / "keys")
    (tmp_path / "keys" / folder).chmod(0o777)
    with pytest.raises(ConfigError, match=r"can be written by others; allowed is a directory of mode 0700"):
        load_server_keys(tmp_path / "keys")
    (tmp_path / "keys" / folder).chmod(0o755)
    assert len(load_server_keys(tmp_path / "keys").accepted) == 1
