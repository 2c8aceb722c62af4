"""`soth-mitm exec`: a command goes through a proxy of its own, ends as it ends, and is told of what it asked for."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from soth_mitm.cli.request_lines import size_text
from soth_mitm.cli.run_summary import MOST_NAMES, OTHERS, RunSummary
from soth_mitm.observe.observation import Event, EventKind, Verdict
from support.certs import TestCA
from support.origin import Origin, Request, ScriptedConnection

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX shells, signals and terminals")
EXEC = (sys.executable, "-m", "soth_mitm", "exec")
GATE = """
from soth_mitm import HandlerDecision

class Gate:
    def on_request(self, request):
        return HandlerDecision.block(451) if "/no" in request.path else HandlerDecision.ALLOW
"""
CHAT = {
    "id": "1",
    "object": "chat.completion",
    "model": "gpt-x",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "tool_calls": [{"id": "a", "type": "function", "function": {"name": "bash", "arguments": "{}"}}],
            },
        }
    ],
    "usage": {"prompt_tokens": 1200, "completion_tokens": 34, "prompt_tokens_details": {"cached_tokens": 1000}},
}


@pytest.fixture(autouse=True)
def _work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTH_MITM_STATE_DIR", str(tmp_path / "state"))
    entries = [str(Path(__file__).parents[2] / entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(entries))
    monkeypatch.chdir(tmp_path)
    Path("gate.py").write_text(GATE)


@pytest.fixture
def plain_origin() -> Iterator[Origin]:
    with Origin(host="localhost") as running:
        yield running


def run(*arguments: str | Path, environment: dict[str, str] | None = None) -> tuple[subprocess.CompletedProcess[str], Any]:
    """Run the command; return how it ended, and the summary."""
    summary = Path("summary.json")
    ended = subprocess.run(
        [*EXEC, "--summary", summary, *arguments], capture_output=True, text=True, timeout=60, env=os.environ | (environment or {})
    )
    return ended, json.loads(summary.read_text()) if summary.exists() else None


def test_a_command_is_seen_and_its_output_is_untouched(plain_origin: Origin) -> None:
    ended, summary = run("--", "curl", "-sS", "-d", "12345", plain_origin.url("/bytes/100"))
    assert (ended.returncode, len(ended.stdout), ended.stderr) == (0, 100, "")
    host = {"requests": 1, "failed": 0, "request_bytes": 5, "response_bytes": 100, "model_calls": 0}
    assert summary["hosts"] == {"localhost": host}
    assert (summary["exit_code"], summary["blocked"], summary["command"][0]) == (0, {}, "curl")


def test_tls_is_trusted_by_the_command_alone(tmp_path: Path) -> None:
    ca = TestCA("Origin Root")
    roots = tmp_path / "roots.pem"
    roots.write_bytes(ca.cert_pem)
    with Origin(ca.server_context("localhost"), host="localhost") as origin:
        ended, summary = run("--upstream-ca", roots, "--", "curl", "-sS", origin.url("/bytes/10"))
    assert (ended.returncode, len(ended.stdout)) == (0, 10), ended.stderr
    assert summary["hosts"]["localhost"]["requests"] == 1
    # neither its CA nor the key of it is kept
    assert [path.name for path in (tmp_path / "state").rglob("*")] == ["flows.db"]


def test_with_allow_all_else_is_blocked(plain_origin: Origin) -> None:
    url = plain_origin.url("/bytes/10")
    ended, summary = run("--allow", "api.example.com:443", "--", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", url)
    assert (ended.stdout, summary["not_allowed"], summary["hosts"]) == ("403", {f"localhost:{plain_origin.port}": 1}, {})
    assert summary["blocked"] == {}
    assert plain_origin.requests == []
    _, summary = run("--allow", f"localhost:{plain_origin.port}", "--", "curl", "-sS", url)
    assert (summary["not_allowed"], summary["hosts"]["localhost"]["requests"]) == ({}, 1)


@pytest.mark.parametrize("denies", ["--strict", "key"])
def test_what_denies_by_default_is_not_opened(denies: str) -> None:
    environment = {"SOTH_MITM__INTERCEPTION__PASSTHROUGH_UNLISTED": "false"} if denies == "key" else {}
    options = ("--strict",) if denies == "--strict" else ()
    command = [*EXEC, *options, "--", "touch", "ran"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | environment)
    assert (ended.returncode, Path("ran").exists()) == (20, False)
    assert "nothing is allowed; add --allow" in ended.stderr


def test_a_connect_that_is_blocked_is_told() -> None:
    ended, summary = run("--allow", "api.example.com:443", "--", "curl", "-sS", "https://127.0.0.1:9/")
    assert ended.returncode != 0
    assert summary["not_allowed"] == {"127.0.0.1:9": 1}


def test_a_handler_decides(plain_origin: Origin) -> None:
    script = f"curl -sS {plain_origin.url('/bytes/3')}; curl -sS -o /dev/null -w '%{{http_code}}' {plain_origin.url('/no')}"
    ended, summary = run("--handler", "gate:Gate", "--", "sh", "-c", script)
    assert ended.stdout.endswith("451")
    assert (summary["blocked"], summary["hosts"]["localhost"]["requests"]) == ({f"localhost:{plain_origin.port}": 1}, 1)
    assert summary["not_allowed"] == {}


def test_a_handler_that_fails_is_told_of_without_a_terminal(plain_origin: Origin) -> None:
    Path("bad.py").write_text("class Bad:\n    def on_request(self, request):\n        return request.nothing\n")
    ended, summary = run("--handler", "bad:Bad", "--", "curl", "-sS", "-o", "/dev/null", plain_origin.url("/bytes/3"))
    assert "AttributeError" in ended.stderr and "bad.py, line 3" in ended.stderr
    assert [reason.partition(":")[0] for reason in summary["failures"]] == ["localhost"]


def test_the_summary_on_standard_output() -> None:
    ended = subprocess.run([*EXEC, "--summary", "-", "--", "true"], capture_output=True, text=True, timeout=60)
    assert json.loads(ended.stdout)["exit_code"] == 0


def test_a_summary_that_cannot_be_written_is_noticed_before_the_command_runs() -> None:
    ended = subprocess.run([*EXEC, "--summary", "none/s.json", "--", "touch", "ran"], capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0 and "none/s.json" in ended.stderr
    assert not Path("ran").exists()


def test_what_models_count(plain_origin: Origin) -> None:
    def answer(connection: ScriptedConnection, request: Request) -> None:
        body = json.dumps(CHAT).encode()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    plain_origin.script(answer, "/v1/chat/completions")
    data = '{"model": "gpt-x", "messages": []}'
    url = plain_origin.url("/v1/chat/completions")
    _, summary = run("--", "curl", "-sS", "-H", "Content-Type: application/json", "-d", data, url)
    assert summary["models"] == {"gpt-x": {"calls": 1, "uncounted": 0, "input": 1200, "cache_read": 1000, "output": 34}}
    assert (summary["tools"], summary["hosts"]["localhost"]["model_calls"]) == ({"bash": 1}, 1)


@pytest.mark.parametrize(
    ("command", "code"),
    [(("sh", "-c", "exit 7"), 7), (("sh", "-c", "kill -KILL $$"), 137), (("no-such-program",), 127), (("/etc/hosts",), 126)],
)
def test_exit_codes(command: tuple[str, ...], code: int) -> None:
    ended, _ = run("--", *command)
    assert ended.returncode == code, ended.stderr
    assert ("no such program" in ended.stderr) == (code == 127)


def test_options_are_the_commands_own() -> None:
    ended, _ = run("sh", "-c", 'echo "$0 $1"', "--summary", "--allow")
    assert ended.stdout == "--summary --allow\n"


def test_the_environment(plain_origin: Origin) -> None:
    ended, _ = run("--direct", "db.example", "--", "env", environment={"NO_PROXY": "localhost", "no_proxy": "localhost"})
    environment = dict(line.split("=", 1) for line in ended.stdout.splitlines() if "=" in line)
    url = environment["SOTH_MITM_PROXY"]
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        assert (environment[name], environment[name.lower()]) == (url, url)
    assert (environment["NO_PROXY"], environment["no_proxy"]) == ("db.example", "db.example")
    assert not Path(environment["SSL_CERT_FILE"]).exists()
    assert environment["SOTH_MITM_RUN"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_goes_on_to_the_command(number: signal.Signals) -> None:
    script = f"trap 'echo got; exit 5' {number.name.removeprefix('SIG')}; echo ready; while :; do sleep 0.05; done"
    # in a session of its own: no terminal that sends it to both
    command = [*EXEC, "--", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.read() == b"got\n"
        assert process.wait(30) == 5


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        import pty

        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.execv(EXEC[0], [*EXEC, *arguments])
        self.said = b""

    def read_until(self, text: bytes) -> None:
        """Read until the terminal shows this."""
        deadline = time.monotonic() + 30
        while text not in self.said:
            assert select.select([self.descriptor], [], [], deadline - time.monotonic())[0], self.said
            try:
                data = os.read(self.descriptor, 65536)
            except OSError:
                # Linux: nobody has the other end any more
                data = b""
            assert data or text in self.said, self.said
            self.said += data

    def end(self) -> int:
        """Wait for the end and return the exit code."""
        try:
            while data := os.read(self.descriptor, 65536):
                self.said += data
        except OSError:
            pass
        os.close(self.descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_a_terminal_is_told_what_was_asked_for(plain_origin: Origin) -> None:
    port = plain_origin.port
    script = f"curl -s -o /dev/null {plain_origin.url('/bytes/2048')}; curl -s -o /dev/null http://127.0.0.1:{port}/; exit 3"
    terminal = Terminal("--allow", f"localhost:{port}", "--", "sh", "-c", script)
    assert terminal.end() == 3
    said = terminal.said.decode()
    for text in ("with a CA of this run only", "sh ended with 3", "localhost", "2.0 KiB", f"--allow '127.0.0.1:{port}'"):
        assert text in said, said


def test_a_terminal_is_told_that_nothing_was_asked_for() -> None:
    terminal = Terminal("--", "true")
    assert terminal.end() == 0
    assert b"no request was seen" in terminal.said and b"soth-mitm doctor" in terminal.said


def test_a_key_of_the_terminal_is_answered_once() -> None:
    script = "count=0; trap 'count=$((count + 1))' INT; echo ready; while [ $count = 0 ]; do :; done; sleep 0.3; exit $((10 + count))"
    terminal = Terminal("--", "sh", "-c", script)
    terminal.read_until(b"ready\r\n")
    os.write(terminal.descriptor, b"\x03")
    assert terminal.end() == 11


def test_names_are_bounded_and_escaped() -> None:
    summary = RunSummary()
    for number in range(MOST_NAMES + 10):
        summary(Event(kind=EventKind.FLOW_END, url=f"http://h{number}.example/", status=200, size=1))
        summary(Event(kind=EventKind.FLOW_END, url=f"http://b{number}.example/", status=403, verdict=Verdict.BLOCKED))
    assert len(summary.hosts) == MOST_NAMES + 1
    assert (summary.hosts[OTHERS].requests, summary.blocked[OTHERS]) == (10, 10)


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.0 GiB")])
def test_sizes(count: int, text: str) -> None:
    assert size_text(count) == text
