"""How each command ends, by exit code. Scripts look at nothing else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from soth_mitm.cli.commands import cli
from soth_mitm.cli.exits import BLOCKED, CONFIG_WRONG, RUN_FAILED, START_FAILED, Failure, explained
from soth_mitm.errors import EventSinkError

OK, USAGE = 0, 2
LISTED = ("--destination", "a.example:443")
# Each command that reads a configuration, with what it needs besides
CONFIGURED: dict[str, tuple[str, ...]] = {
    "run": (),
    "check-policy": ("a.example:443",),
    "doctor": ("--only", "curl"),
    "ca path": (),
    "ca generate": (),
    "ca show": (),
    "ca export": ("x.pem",),
    "ca import": ("file",),
    "ca rotate": (),
    "ca install": (),
    "ca uninstall": (),
    "ca status": (),
    "ca env": ("--proxy", "http://127.0.0.1:1"),
    "exec": ("true",),
}


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SOTH_MITM__")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SOTH_MITM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    # a relative entry would not be found from there
    entries = [str(Path(__file__).parents[2] / entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(entries))
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("file").write_text("x")


# Each command that reads a flow store, with what it needs besides
OF_A_STORE: dict[str, tuple[str, ...]] = {
    "flows list": (),
    "flows show": ("1",),
    "flows search": ("word",),
    "flows export": ("--ndjson",),
    "flows stats": (),
    "flows watch": (),
    "flows prune": ("--all",),
    "flows replay": ("1",),
}


def call(*arguments: str, stdin: str = "") -> tuple[int, str]:
    result = CliRunner().invoke(cli, arguments, input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def names(group: click.Group = cli, before: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from names(command, f"{before}{name} ")
        else:
            yield before + name


def test_every_command_is_in_the_table() -> None:
    assert set(names()) == {*CONFIGURED, *OF_A_STORE, "config", "flows path", "view"}


@pytest.mark.parametrize("command", OF_A_STORE)
def test_no_store(command: str) -> None:
    code, output = call(*command.split(), *OF_A_STORE[command], "--store", "none.db")
    assert code == RUN_FAILED and "none.db" in output


@pytest.mark.parametrize("command", [*CONFIGURED, *OF_A_STORE, "config", "", "ca", "flows", "flows path", "view"])
def test_usage_and_help(command: str) -> None:
    words = command.split()
    assert call(*words, "--no-such-option")[0] == USAGE
    assert call(*words, "--help")[0] == OK


@pytest.mark.parametrize("arguments", [(), ("ca",), ("config",), ("no-such-command",), ("check-policy",), ("check-policy", "a.example")])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert call(*arguments)[0] == USAGE


@pytest.mark.parametrize("content", [None, b"bind = 3", b"bind =", b'bind = "\xff"'], ids=["missing", "wrong", "no TOML", "no UTF-8"])
@pytest.mark.parametrize("command", [*CONFIGURED, "config"])
def test_wrong_configuration(command: str, content: bytes | None) -> None:
    if content is not None:
        Path("x.toml").write_bytes(content)
    given = ("--check", "x.toml") if command == "config" else ("--config", "x.toml", *CONFIGURED[command])
    code, output = call(*command.split(), *given)
    assert code == CONFIG_WRONG and output.startswith("Error: "), output


@pytest.mark.parametrize("command", ["run", "doctor", "ca show", "ca export", "ca rotate", "ca install", "ca env"])
def test_a_ca_that_cannot_be_used(command: str) -> None:
    assert call("ca", "generate")[0] == OK
    Path("state/soth-mitm-ca-key.pem").write_text("garbage")
    more = (*LISTED, "--bind", "127.0.0.1:0") if command == "run" else ()
    code, output = call(*command.split(), *CONFIGURED[command], *more)
    assert code == START_FAILED and "soth-mitm-ca-key.pem" in output


def test_a_start_that_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert call("run", *LISTED, "--bind", f"127.0.0.1:{taken.getsockname()[1]}")[0] == START_FAILED
    assert call("run", *LISTED, "--handler", "gone:Gate")[0] == START_FAILED
    assert call("run", *LISTED, "--upstream-ca", "gone.pem")[0] == CONFIG_WRONG
    assert call("run")[0] == CONFIG_WRONG


def test_what_the_policy_says() -> None:
    assert call("check-policy", "a.example:443", *LISTED)[0] == OK
    assert call("check-policy", "b.example:443", *LISTED, "--strict")[0] == BLOCKED


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("ca", "import", "gone.pem", "--force"), RUN_FAILED),
        (("ca", "import", ".", "--force"), RUN_FAILED),
        (("ca", "export", "file"), RUN_FAILED),
        (("ca", "export", "gone/x.pem"), RUN_FAILED),
        (("ca", "export", "x.p12", "--format", "p12", "--with-key", "--password-file", "gone"), RUN_FAILED),
        (("ca", "export", "x.p12", "--format", "p12", "--with-key", "--password-file", "latin"), RUN_FAILED),
        (("ca", "export", "x.pem", "--with-key"), USAGE),
        (("ca", "generate"), START_FAILED),
        (("ca", "show"), OK),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else "",
)
def test_files_of_a_ca(arguments: tuple[str, ...], code: int) -> None:
    call("ca", "generate")
    Path("latin").write_bytes(b"pass\xff\n")
    found, output = call(*arguments)
    assert found == code, output
    assert "Traceback" not in output


def test_a_prompt_that_nobody_answers() -> None:
    """Standard input that ends says the same as Ctrl-C."""
    call("ca", "generate")
    code, output = call("ca", "export", "x.p12", "--format", "p12", "--with-key")
    assert (code, output.splitlines()[-1]) == (RUN_FAILED, "Error: interrupted, or a prompt got no answer")
    assert not Path("x.p12").exists()


def ended(*arguments: str, stdout: int) -> tuple[int, str]:
    done = subprocess.run((sys.executable, "-m", "soth_mitm", *arguments), stdout=stdout, stderr=subprocess.PIPE, timeout=60, check=False)
    return done.returncode, done.stderr.decode()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk() -> None:
    with open("/dev/full", "wb") as full:
        assert ended("config", "--defaults", stdout=full.fileno()) == (RUN_FAILED, "Error: [Errno 28] No space left on device\n")


@pytest.mark.skipif(os.name != "posix", reason="POSIX pipes")
def test_a_reader_that_has_gone() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert ended("config", "--defaults", stdout=writing) == (RUN_FAILED, "Error: [Errno 32] Broken pipe\n")
    finally:
        os.close(writing)


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run `soth-mitm run`; yields the process and its port, when it listens."""
    argv = (sys.executable, "-m", "soth_mitm", "run", "--bind", "127.0.0.1:0", *LISTED, *arguments)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline().rpartition(":")[2])
        finally:
            process.kill()


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_proxy_that_is_asked_to_stop(number: int) -> None:
    with running() as (process, _):
        process.send_signal(number)
        assert process.wait(30) == OK


def test_a_handler_that_ends_the_proxy() -> None:
    Path("gate.py").write_text(
        "class Gate:\n    def on_connection_open(self, meta):\n        raise SystemExit('enough')\n"
        "    def on_request(self, request):\n        raise SystemExit('enough')\n"
    )
    with running("--handler", "gate:Gate") as (process, port), socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n")
        _, said = process.communicate(timeout=30)
        assert process.returncode == RUN_FAILED and "the handler raised SystemExit" in said


def test_an_event_sink_that_cannot_be_opened_has_a_code_of_its_own() -> None:
    with pytest.raises(Failure) as caught, explained():
        raise EventSinkError("SqliteSink", "cannot be opened: no space left")
    assert (caught.value.exit_code, caught.value.message) == (21, "event sink SqliteSink: cannot be opened: no space left")
