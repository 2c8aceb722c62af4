"""The command line: what each command prints, how it fails, how it ends."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import metadata, requires
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from packaging.requirements import Requirement

from soth_mitm import MitmConfig
from soth_mitm.cli.commands import cli
from soth_mitm.cli.exits import Failure
from soth_mitm.cli.handler_loading import load_handler
from soth_mitm.cli.request_lines import without_query_values
from support.certs import TestCA
from support.origin import Origin

PROXY = (sys.executable, "-m", "soth_mitm")
RUN = (*PROXY, "run", "--bind", "127.0.0.1:0")


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep away from this user's CA and from what the environment configures; work in an empty directory."""
    for name in [name for name in os.environ if name.startswith("SOTH_MITM__")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SOTH_MITM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    # a relative entry would not be found from there
    entries = [str(Path(__file__).parents[2] / entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(entries))
    monkeypatch.setattr(sys, "path", list(sys.path))


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


@pytest.mark.parametrize("group", [(), ("ca",)])
def test_the_list_of_commands_is_not_cut_on_a_narrow_terminal(group: tuple[str, ...]) -> None:
    shown = CliRunner(env={"COLUMNS": "80"}).invoke(cli, (*group, "--help")).stdout
    assert "Commands:" in shown and "..." not in shown.partition("Commands:")[2]


# --- config


def test_defaults_are_the_defaults() -> None:
    result = call("config", "--defaults")
    assert result.exit_code == 0
    assert MitmConfig.from_mapping(tomllib.loads(result.stdout)).diff(MitmConfig()) == []


def test_the_defaults_pass_the_check() -> None:
    Path("x.toml").write_text(call("config", "--defaults").stdout)
    assert call("config", "--check", "x.toml").exit_code == 0


def test_check_names_keys_without_effect() -> None:
    Path("idle.toml").write_text('via_header = true\n[interception]\ndestinations = ["a.example:443"]\n', encoding="utf-8")
    result = call("config", "--check", "idle.toml")
    assert (result.exit_code, result.stdout) == (0, "idle.toml is valid\n")
    assert result.stderr.startswith("warning: via_header has no effect: ")


@pytest.mark.parametrize(
    ("text", "code", "part"),
    [
        ('[interception]\ndestinations = ["a.example:443"]\n', 0, "x.toml is valid"),
        ("[interception]\ndestinations = []\n", 0, "it lists nothing to intercept: set interception.destinations"),
        ('[interception]\ndestination = ["a.example:443"]\n', 20, "did you mean `interception.destinations`?"),
        ("bind =\n", 20, "x.toml"),
        (
            '[interception]\ndestinations = ["a.example:443"]\n[upstream]\nciphers = "RC5"\n',
            20,
            "upstream.ciphers: 'RC5' names no cipher suite",
        ),
    ],
)
def test_check(text: str, code: int, part: str) -> None:
    Path("x.toml").write_text(text)
    result = call("config", "--check", "x.toml")
    assert (result.exit_code, part in result.output) == (code, True), result.output


def test_check_of_no_file() -> None:
    result = call("config", "--check", "gone.toml")
    assert (result.exit_code, result.output) == (20, "Error: cannot read gone.toml: No such file or directory\n")


@pytest.mark.parametrize("arguments", [("config",), ("config", "--defaults", "--check", "x"), ("ca",), ("run", "--nonsense")])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert call(*arguments).exit_code == 2


# --- ca


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_a_key_that_others_can_read() -> None:
    path = Path(call("ca", "path").stdout.strip())
    path.with_name("soth-mitm-ca-key.pem").chmod(0o644)
    result = call("run", "--bind", "127.0.0.1:0", "--destination", "a.example:443")
    assert result.exit_code == 22
    assert "chmod 600" in result.output


# --- handlers


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("mine", "write it as module:Class"),
        ("gone:Gate", "there is no module gone"),
        ("mine:Gat", "mine has no class Gat; its classes are: Gate, Needy"),
        ("mine:number", "mine has no class number"),
        ("mine:Needy", "is made without arguments"),
        ("broken:Gate", "importing broken failed: ZeroDivisionError"),
        ("needs:Gate", "importing needs failed: No module named 'absent_dependency'"),
        ("odd:Odd", "Odd.on_request must be a method"),
        ("mine:Gate", "Gate overrides no method of a handler"),
        ("typo:Gate", "Gate.on_requests is never called: the method of a handler is `on_request`"),
    ],
)
def test_handler_errors_are_explained(spec: str, part: str) -> None:
    Path("mine.py").write_text("number = 1\nclass Gate:\n    pass\nclass Needy:\n    def __init__(self, x):\n        pass\n")
    Path("broken.py").write_text("1 / 0\n")
    Path("needs.py").write_text("import absent_dependency\n")
    Path("odd.py").write_text("class Odd:\n    on_request = 1\n")
    Path("typo.py").write_text("class Gate:\n    def on_requests(self, request):\n        pass\n")
    for name in ("mine", "broken", "needs", "odd", "typo"):
        sys.modules.pop(name, None)
    with pytest.raises(Failure) as caught:
        load_handler(spec)
    assert caught.value.exit_code == 22
    assert part in caught.value.message
    assert "\n" not in caught.value.message


def test_query_values_are_not_shown() -> None:
    assert without_query_values("https://h/p?key=abc&x&y=1=2") == "https://h/p?key=…&x&y=…"
    assert without_query_values("https://h/p=1") == "https://h/p=1"


# --- run


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Origin]:
    ca = TestCA()
    (tmp_path / "roots.pem").write_bytes(ca.cert_pem)
    with Origin(ca.server_context("localhost")) as origin:
        yield origin


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int, Path]]:
    """Run the proxy; yields the process, its port and the path of its CA. What it printed before is consumed."""
    with subprocess.Popen([*RUN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(5)]
            if not all(said):
                pytest.fail(f"it ended: {process.communicate()}")
            port = int(said[0].rstrip().rpartition(":")[2])
            ca = Path(said[2].split(maxsplit=1)[1].strip())
            assert f"curl -x http://127.0.0.1:{port} --cacert {ca} https://" in said[3]
            assert f'eval "$(soth-mitm ca env --proxy http://127.0.0.1:{port}' in said[4]
            yield process, port, ca
        finally:
            if process.poll() is None:
                process.kill()


def at(origin: Origin, path: str) -> str:
    return f"https://localhost:{origin.port}{path}"


def fetch(url: str, port: int, ca: Path) -> int:
    proxy = urllib.request.ProxyHandler({"https": f"http://127.0.0.1:{port}"})
    trust = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))
    try:
        with urllib.request.build_opener(proxy, trust).open(url, timeout=10) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


GATE = """
from soth_mitm import HandlerDecision

class Gate:
    def on_request(self, request):
        return HandlerDecision.block(418) if "/no" in request.path else HandlerDecision.ALLOW
"""


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_it_says_where_the_metrics_are_and_serves_them(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTH_MITM__PROMETHEUS_BIND", "127.0.0.1:0")
    with running("--bind", "127.0.0.1:0", "--destination", "localhost:*") as (process, _, _):
        assert process.stdout is not None
        word, url = process.stdout.readline().split()
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert word == "metrics" and b"\nsothmitm_client_connections_accepted_total 0.0\n" in answer.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_line_per_request_and_a_clean_end(origin: Origin, number: signal.Signals) -> None:
    Path("gate.py").write_text(GATE)
    options = ("--destination", f"localhost:{origin.port}", "--upstream-ca", "roots.pem", "--handler", "gate:Gate")
    with running(*options) as (process, port, ca):
        assert fetch(at(origin, "/bytes/3000?key=secret"), port, ca) == 200
        assert fetch(at(origin, "/no"), port, ca) == 418
        assert fetch(at(origin, "/sse/3/1"), port, ca) == 200
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    lines = output.splitlines()
    (ok,) = [line for line in lines if "/bytes/3000" in line]
    assert " GET " in ok and "?key=… 200 2.9 KiB" in ok and "secret" not in output
    (blocked,) = [line for line in lines if "/no" in line]
    assert "BLOCKED 418" in blocked
    began, ended = [line for line in lines if "/sse" in line]
    assert "200 stream" in began and "stream ended " in ended
    assert lines[-1] == "stopped after 3 connections: 3 requests, 1 blocked, 0 tunnels"


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_a_failing_handler_is_named_and_forwards_nothing(origin: Origin) -> None:
    Path("bad.py").write_text("class Bad:\n    async def on_request(self, request):\n        raise ValueError('no luck')\n")
    options = ("--destination", f"localhost:{origin.port}", "--upstream-ca", "roots.pem", "--handler", "bad:Bad")
    with running(*options) as (process, port, ca):
        assert fetch(at(origin, "/bytes/3"), port, ca) == 502
        process.terminate()
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "/bytes/3 failed 502 the handler failed: no luck" in output
    assert "Bad.on_request failed: ValueError('no luck')" in errors


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_quiet_says_nothing_of_requests(origin: Origin) -> None:
    with running("--destination", f"localhost:{origin.port}", "--upstream-ca", "roots.pem", "--quiet") as (process, port, ca):
        assert fetch(at(origin, "/bytes/3"), port, ca) == 200
        process.terminate()
        assert "/bytes/3" not in process.communicate(timeout=30)[0]
    assert process.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize("option", ["--block-unlisted", "--strict"])
def test_unlisted_is_blocked_if_asked(origin: Origin, option: str) -> None:
    with running("--destination", "a.example:443", option) as (process, port, _):
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(b"CONNECT localhost:%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % origin.port)
            assert client.recv(100).startswith(b"HTTP/1.1 403 ")
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_a_second_signal_cuts(origin: Origin) -> None:
    with running("--destination", "a.example:443") as (process, port, _), socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % origin.port)
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert "CONNECT 127.0.0.1" in process.stdout.readline()
        assert "1 connection(s) may finish" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert output.startswith("cut\n")


@pytest.mark.skipif(sys.platform != "linux", reason="procfs")
@pytest.mark.parametrize(
    ("limits", "flows", "allowed", "warns"), [("-Sn 300", 2048, 4352, False), ("-n 1000", 2048, 1000, True), ("-n 1000", 300, 1000, False)]
)
def test_enough_files_may_be_open(limits: str, flows: int, allowed: int, warns: bool) -> None:
    command = f'ulimit {limits} && exec "$@"'
    keys = {**os.environ, "SOTH_MITM__MAX_CONCURRENT_FLOWS": str(flows)}
    arguments = ["sh", "-c", command, "sh", *RUN, "--destination", "a.example:443"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=keys) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(5)]
        assert all(said), process.communicate()
        found = Path(f"/proc/{process.pid}/limits").read_text().partition("Max open files")[2].split()
        process.terminate()
        # not communicate(), which loses what a readline() has read ahead
        assert process.stderr is not None
        rest, errors = process.stdout.read(), process.stderr.read()
    assert (int(found[0]), errors) == (allowed, "")
    words = " ".join(rest.split())
    assert ("may open 1000 files, and max_concurrent_flows = 2048 may need 4352" in words) == warns
    assert ("set max_concurrent_flows = 372" in words) == warns


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_sighup_reads_the_file_again() -> None:
    text = '[interception]\ndestinations = ["a.example:443"]\n[body]\nmax_size_bytes = {}\n'
    Path("x.toml").write_text(text.format(1000))
    with running("--config", "x.toml") as (process, _, _):
        assert process.stdout is not None
        said = []
        for size in ("2000", "-1", "3000"):
            Path("x.toml").write_text(text.format(size))
            process.send_signal(signal.SIGHUP)
            said.append(process.stdout.readline().strip())
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert (said[0], said[2]) == ("reloaded; changed: body.max_size_bytes",) * 2
    assert said[1].startswith("not reloaded, nothing changed: body.max_size_bytes: ")


def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [*PROXY, "run", "--bind", f"127.0.0.1:{port}", "--destination", "a.example:443"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (22, "")
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    assert str(port) in done.stderr


def test_nothing_to_intercept_is_a_wrong_configuration() -> None:
    result = call("run")
    assert result.exit_code == 20
    assert "--destination" in result.output


def test_a_plain_installation_has_all_that_the_command_needs() -> None:
    """No extra has to be named, and the extra `cli` of earlier releases is still there."""
    needed = [Requirement(text) for text in requires("soth-mitm") or []]
    plain = {each.name for each in needed if each.marker is None or "extra" not in str(each.marker)}
    assert {"click", "rich"} <= plain
    assert "cli" in metadata("soth-mitm").get_all("Provides-Extra", [])


def test_the_module_is_the_command() -> None:
    done = subprocess.run([*PROXY, "--version"], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.startswith("soth-mitm, version ")
