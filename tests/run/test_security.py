"""Where a server may listen, who gets in on real processes, and that keys are in no file and no sentence."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from asgd.api import replay, train
from asgd.bench.hostile import run_hostile
from asgd.config import load_config
from asgd.errors import ConfigError
from asgd.net.keys import make_keys
from asgd.run.ledger import check_trace
from asgd.run.security import check_binding, client_keys, limits, server_keys, warnings

TINY = """
[task]
function = "quadratic"
options = { dimension = 4 }
batch_size = 2
[cluster]
num_workers = 2
start_timeout_s = 60
[budget]
versions = 60
[evaluation]
evaluate = "never"
"""
ELSEWHERE = ["tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://192.0.2.1:5555", "tcp://[::]:5555"]
HERE = ["tcp://127.0.0.1:5555", "tcp://localhost:0", "tcp://[::1]:5555", "ipc:///tmp/asgd-x/y", "ipc"]
LIMIT_S = 100.0


def config_of(**security):
    return load_config({"budget": {"versions": 1}, "security": security})


@pytest.fixture
def keys(tmp_path):
    make_keys(tmp_path / "keys", ("worker", "other"))
    return tmp_path / "keys"


def secrets(keys: Path) -> list[str]:
    return [path.read_text().strip() for path in keys.rglob("*.*")]


@pytest.mark.parametrize("address", ELSEWHERE)
def test_without_keys_nobody_else_can_reach_the_server(address, keys):
    with pytest.raises(ConfigError) as caught:
        check_binding(config_of(), address)
    for part in (address, "asgd keys", "security.keys", "security.insecure = true"):
        assert part in str(caught.value)
    check_binding(config_of(keys=str(keys)), address)
    check_binding(config_of(insecure=True), address)


@pytest.mark.parametrize("address", HERE)
def test_this_machine_alone_needs_no_keys(address, tmp_path):
    if address.startswith("ipc://"):
        address = f"ipc://{tmp_path}/s"
    check_binding(config_of(), address)
    assert warnings(config_of(insecure=True), address) == []


def test_an_abstract_socket_is_anybodys(keys):
    """No file, so nobody's: no permissions keep another user away."""
    address = "ipc://@asgd-test"
    with pytest.raises(ConfigError, match="without keys: every user of this machine can reach it; make some with"):
        check_binding(config_of(), address)
    check_binding(config_of(keys=str(keys)), address)
    check_binding(config_of(insecure=True), address)
    (line,) = warnings(config_of(insecure=True), address)
    assert line.startswith("INSECURE: listening at ipc://@asgd-test without keys")


def test_insecure_is_loud_and_keys_are_not(keys):
    (line,) = warnings(config_of(insecure=True), ELSEWHERE[0])
    assert line.startswith("INSECURE: listening at tcp://*:5555 without keys")
    assert warnings(config_of(insecure=True, keys=str(keys)), ELSEWHERE[0]) == []


def test_keys_lie_beside_the_configuration(keys, tmp_path, monkeypatch):
    (tmp_path / "a.toml").write_text(TINY + '[security]\nkeys = "keys"\nkey = "other"\n')
    monkeypatch.chdir("/")
    config = load_config(tmp_path / "a.toml")
    assert config.security.keys == str(keys)
    assert client_keys(config).public in server_keys(config).accepted


def test_keys_that_are_missing_are_named(tmp_path):
    config = config_of(keys=str(tmp_path / "none"))
    for load in (server_keys, client_keys, lambda config: check_binding(config, "ipc")):
        with pytest.raises(ConfigError, match=r"there is no key .*none/.*\.key; make keys with"):
            load(config)


def test_the_number_of_peers_follows_the_workers():
    assert limits(config_of()).connections == 72 and limits(config_of(max_peers=5)).connections == 5


# On real processes.


def asgd(folder: Path, *arguments: str, **options) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "asgd", *arguments], cwd=folder, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and standard error; a time-out fails the test."""
    try:
        _, err = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, err


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("address", ["ipc", "tcp"])
def test_a_cluster_with_keys_trains_and_no_file_of_it_has_a_key(keys, tmp_path, address):
    (tmp_path / "a.toml").write_text(TINY + '[security]\nkeys = "keys"\n')
    address = "ipc" if address == "ipc" else free_address()
    overrides = [f"cluster.address={address}", "method.norm_guard=1.5"]
    run = train(tmp_path / "a.toml", overrides, run_dir=tmp_path / "run")
    assert replay(tmp_path / "run").is_exact  # with what the norm guard refused
    assert run.summary.finished and check_trace(run.trace, run.summary.outstanding) == []
    assert run.config.security.keys == str(keys)
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(written) > 5
    for path in written:
        content = path.read_bytes()
        assert not [key for key in secrets(keys) if key.encode() in content], path


@pytest.mark.cluster
@pytest.mark.slow
def test_roles_without_the_right_keys_end_with_one_sentence_and_the_others_train(keys, tmp_path):
    """A worker without a key, one with a key of another list, and the right two, on the command line."""
    make_keys(tmp_path / "wrong")
    (tmp_path / "wrong" / "server.pub").write_bytes((keys / "server.pub").read_bytes())
    (tmp_path / "a.toml").write_text(TINY)
    address = free_address()
    server = asgd(tmp_path, "server", "a.toml", "--bind", address, "--keys", "keys", "--run-dir", "run")
    heard = [next(line for line in server.stderr if "listening at" in line)]
    assert address in heard[0]
    rest: list[str] = []
    reader = threading.Thread(target=lambda: rest.extend(server.stderr))
    reader.start()
    plain = asgd(tmp_path, "worker", "a.toml", "--connect", address)
    wrong = asgd(tmp_path, "worker", "a.toml", "--connect", address, "--keys", "wrong")
    answers = {"plain": ended(plain), "wrong": ended(wrong)}
    assert answers["plain"][0] == answers["wrong"][0] == 1
    assert "lets in nobody without a key" in answers["plain"][1]
    assert "does not have our key in its list" in answers["wrong"][1]
    right = [asgd(tmp_path, "worker", "a.toml", "--connect", address, "--keys", "keys", "--key", name)
             for name in ("worker", "other")]  # fmt: skip
    errors = [ended(worker) for worker in right]
    assert [status for status, _ in errors] == [0, 0]
    assert server.wait(LIMIT_S) == 0
    reader.join(LIMIT_S)
    server.stdout.close()
    server.stderr.close()
    assert any("refused a client whose key is not in the server's list" in line for line in rest)
    said = "".join([*heard, *rest, *(err for _, err in [*answers.values(), *errors])])
    said += "".join(path.read_text(errors="replace") for path in (tmp_path / "run").rglob("*") if path.is_file())
    everything = [*secrets(keys), *secrets(tmp_path / "wrong")]
    assert not [key for key in everything if key in said]


@pytest.mark.cluster
@pytest.mark.slow
def test_a_server_that_anybody_can_reach_says_so_and_one_without_permission_does_not_start(tmp_path):
    (tmp_path / "a.toml").write_text(TINY)
    port = free_address().rpartition(":")[2]
    status, err = ended(asgd(tmp_path, "server", "a.toml", "--bind", f"tcp://*:{port}", "--run-dir", "run"))
    assert status == 2 and "without keys" in err and "Traceback" not in err and not (tmp_path / "run").exists()
    status, err = ended(
        asgd(tmp_path, "server", "a.toml", "--bind", f"tcp://*:{port}", "--insecure", "--run-dir", "run",
             "--set", "cluster.start_timeout_s=0.1")
    )  # fmt: skip
    assert "INSECURE: listening at tcp://*:" in err
    assert status == 1 and "no worker has been there" in err


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_thousand_hostile_frames_change_nothing():
    """Long enough to be refused, cut off, and back, many times over; `asgd bench hostile` sends a million."""
    result = run_hostile(20_000, 400)
    assert result.attacked.problems == [] and result.attacked.lost == 0 and result.attacked.replay_is_exact
    assert result.same and result.alone.parameters_sha256 == result.attacked.parameters_sha256
    assert result.frames >= 5_000  # 20,000 unless the machine is very busy
    assert set(result.sent) >= {"garbage", "mutated", "insiders", "doubles"}
    assert result.attacked.refused_messages > 500 and result.attacked.clients_cut_off > 5
    assert result.attacked.server_memory_mb < result.alone.server_memory_mb + 100


def test_asgd_keys_makes_them_once(tmp_path, monkeypatch, capsys):
    from asgd import cli

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["asgd", *arguments])
        with pytest.raises(SystemExit) as exited:
            cli.main()
        said = capsys.readouterr()
        return int(exited.value.code or 0), said.out, said.err

    folder = tmp_path / "keys"
    status, out, _ = run("keys", str(folder), "--json", "--name", "a", "--name", "b")
    assert status == 0
    made = [Path(path) for path in json.loads(out)["made"]]
    assert sorted(path.name for path in made) == ["a.key", "a.pub", "b.key", "b.pub", "server.key", "server.pub"]
    before = {path: path.read_bytes() for path in made}
    status, out, err = run("keys", str(folder), "--name", "a")
    assert status == 2 and err.count("\n") == 1 and "is there already" in err
    status, out, _ = run("keys", str(folder), "--name", "c")
    assert status == 0 and "c.key" in out and {path: path.read_bytes() for path in before} == before
    assert not [key for key in secrets(folder) if key in out]
    assert os.stat(folder / "c.key").st_mode & 0o777 == 0o600
