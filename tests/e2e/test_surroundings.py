"""The command and scripts where containers and supervisors start them: no home, no standard streams, signals, forks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from soth_mitm.errors import CaOperationError
from soth_mitm.tls.ca_files import ca_paths

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, forks and descriptors of POSIX")

COMMAND = (sys.executable, "-m", "soth_mitm")
# enough for a start on a busy machine; nothing waits for it
PATIENCE = 30.0
DRAIN_MS = 60_000


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTH_MITM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SOTH_MITM__TIMEOUTS__DRAIN_MS", str(DRAIN_MS))
    monkeypatch.chdir(tmp_path)


@contextmanager
def started(*command: str, **more: object) -> Iterator[subprocess.Popen[str]]:
    """Run a command; it is killed if it is still there at the end."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)  # type: ignore[call-overload]
    with process:
        try:
            yield process
        finally:
            process.kill()


def port_said_by(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if "http://127.0.0.1:" in line:
            return int(line.rpartition(":")[2])
    raise AssertionError(f"it ended with {process.wait()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def connected(port: int) -> socket.socket:
    """Connect as soon as somebody listens."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "nobody listens"


class TestNoHome:
    """Neither HOME nor an entry for the user, as OpenShift starts containers."""

    @pytest.fixture(autouse=True)
    def _no_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def home() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", home)
        for name in ("SOTH_MITM_STATE_DIR", "XDG_STATE_HOME"):
            monkeypatch.delenv(name, raising=False)

    def test_says_what_to_set(self) -> None:
        with pytest.raises(CaOperationError, match=r"SOTH_MITM_STATE_DIR.*tls\.ca_cert_path"):
            ca_paths(None, None)

    def test_is_not_asked_for_where_it_is_not_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert ca_paths("/a/ca.pem", "/a/key.pem") == (Path("/a/ca.pem"), Path("/a/key.pem"))
        monkeypatch.setenv("SOTH_MITM_STATE_DIR", "/state")
        assert ca_paths(None, None)[0].parent == Path("/state")

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become nobody")
    def test_on_the_command_line(self) -> None:
        # what it needs is imported before: the files may not be this user's to read
        script = """
import os, sys
import soth_mitm.cli.commands
from soth_mitm.__main__ import main

os.setgid(123456)
os.setuid(123456)
sys.argv = ["soth-mitm", "ca", "path"]
main()
"""
        environ = {"PATH": os.environ["PATH"]}
        done = subprocess.run([sys.executable, "-c", script], env=environ, cwd="/", capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (22, 1), done.stderr
        assert "SOTH_MITM_STATE_DIR" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(closed: str) -> None:
    """The loop's library aborts when it is to close one of their numbers."""
    port = free_port()
    run = (*COMMAND, "run", "--bind", f"127.0.0.1:{port}", "--destination", "localhost:*")
    with started("sh", "-c", f'exec "$@" {closed}', "sh", *run) as process:
        with connected(port) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 400"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert process.stdout is not None and "Traceback" not in process.stdout.read()


class TestSignals:
    """The first lets open flows finish, a second one cuts them."""

    SCRIPT = """
import os
from soth_mitm import InterceptHandler, MitmConfig, MitmProxyBuilder

config = MitmConfig(bind="127.0.0.1:{port}").with_environment(os.environ)
config.interception.destinations.append("localhost:*")
MitmProxyBuilder(config, InterceptHandler()).build().run_forever()
print("ended in order")
"""

    @pytest.fixture(params=["command", "script"])
    def running(self, request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], int]]:
        port = free_port()
        run = (*COMMAND, "run", "--bind", f"127.0.0.1:{port}", "--destination", "localhost:*")
        script = (sys.executable, "-c", self.SCRIPT.format(port=port))
        with started(*(run if request.param == "command" else script)) as process:
            yield process, port

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_the_first_lets_a_request_finish(self, running: tuple[subprocess.Popen[str], int], number: signal.Signals) -> None:
        process, port = running
        with self.request_under_way(port) as (client, upstream):
            process.send_signal(number)
            self.wait_until_nobody_listens(port)
            upstream.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 204"
        assert process.wait(PATIENCE) == 0

    def test_a_second_one_cuts(self, running: tuple[subprocess.Popen[str], int]) -> None:
        process, port = running
        with self.request_under_way(port):
            process.send_signal(signal.SIGINT)
            self.wait_until_nobody_listens(port)
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0

    @staticmethod
    @contextmanager
    def request_under_way(port: int) -> Iterator[tuple[socket.socket, socket.socket]]:
        """Yield a client that waits for an answer, and the upstream's end of the connection on which it was asked."""
        with socket.create_server(("127.0.0.1", 0)) as listening, connected(port) as client:
            listening.settimeout(PATIENCE)
            target = b"127.0.0.1:%d" % listening.getsockname()[1]
            client.sendall(b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, target))
            upstream, _ = listening.accept()
            with upstream:
                assert upstream.recv(4096).startswith(b"GET / ")
                yield client, upstream

    def test_an_ignored_hangup_stays_ignored(self) -> None:
        """As `nohup` starts programs."""
        port = free_port()
        run = (*COMMAND, "run", "--bind", f"127.0.0.1:{port}", "--destination", "localhost:*")
        with started("sh", "-c", 'trap "" HUP; exec "$@"', "sh", *run) as process:
            connected(port).close()
            process.send_signal(signal.SIGHUP)
            with connected(port) as client:
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert client.recv(12) == b"HTTP/1.1 400"
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0

    @staticmethod
    def wait_until_nobody_listens(port: int) -> None:
        with pytest.raises(ConnectionError):
            while True:
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()


def test_a_forked_child_does_not_keep_the_port(tmp_path: Path) -> None:
    """Nor the file of a Unix socket's listener: whoever connects when the proxy has ended is refused."""
    script = tmp_path / "forks.py"
    script.write_text(
        """
import os, socket, sys
from soth_mitm import InterceptHandler, MitmConfig, MitmProxyBuilder, generate_ca

config = MitmConfig(bind="127.0.0.1:0", unix_socket_path=sys.argv[1])
config.interception.destinations.append("localhost:*")
proxy = MitmProxyBuilder(config, InterceptHandler()).with_ca(generate_ca()).build()
read, write = os.pipe()
with proxy.start_in_thread() as handle:
    port = handle.port
    os.link(sys.argv[1], sys.argv[1] + ".kept")
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    # the parent's sockets are as they were
    socket.create_connection(("127.0.0.1", port)).close()
refused = 0
try:
    socket.create_connection(("127.0.0.1", port))
except ConnectionRefusedError:
    refused += 1
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1] + ".kept")
except ConnectionRefusedError:
    refused += 1
os.close(write)
os.waitpid(child, 0)
print("refused", refused)
"""
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(tmp_path / "s")], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.stdout == "refused 2\n", done.stderr


def test_a_forked_child_does_not_keep_connections(tmp_path: Path) -> None:
    """Neither a client's nor an upstream's: both see the end when the proxy ends, while the child lives on."""
    script = tmp_path / "forks.py"
    script.write_text(
        """
import os, socket, sys
from soth_mitm import HandlerDecision, InterceptHandler, MitmConfig, MitmProxyBuilder, ShutdownTimeoutError, generate_ca

class Gate(InterceptHandler):
    def on_request(self, request):
        return HandlerDecision.ALLOW

upstream = socket.create_server(("127.0.0.1", 0))
config = MitmConfig(bind="127.0.0.1:0", unix_socket_path=sys.argv[1])
config.interception.destinations.append("127.0.0.1:*")
config.timeouts.drain_ms = 100
proxy = MitmProxyBuilder(config, Gate()).with_ca(generate_ca()).build()
read, write = os.pipe()
handle = proxy.start_in_thread()
clients = [socket.create_connection(("127.0.0.1", handle.port)), socket.socket(socket.AF_UNIX)]
clients[1].connect(sys.argv[1])
accepted = []
for client in clients:
    where = "127.0.0.1:%d" % upstream.getsockname()[1]
    client.sendall(f"GET http://{where}/ HTTP/1.1\\r\\nHost: {where}\\r\\n\\r\\n".encode())
    accepted.append(upstream.accept()[0])
    accepted[-1].recv(1000)
child = os.fork()
if child == 0:
    for each in (*clients, *accepted):
        each.close()
    os.close(write)
    os.read(read, 1)
    os._exit(0)
try:
    handle.shutdown()
except ShutdownTimeoutError:
    pass
ended = 0
for each in (*clients, *accepted):
    each.settimeout(5)
    try:
        while each.recv(1000):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        continue
    ended += 1
os.close(write)
os.waitpid(child, 0)
print("ended", ended)
"""
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(tmp_path / "s")], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.stdout == "ended 4\n", done.stderr
