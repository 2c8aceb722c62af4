"""What `soth-mitm run` shows, and that showing it decides nothing: a terminal that is gone, full, or cannot show a name."""

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from rich.console import Console

from soth_mitm import ConnectionMeta, ProcessInfo, TcpV4
from soth_mitm.cli.display import LOG_BACKLOG, Display, logging_to
from soth_mitm.cli.request_lines import RequestLines
from soth_mitm.observe.observation import Event, EventKind, Verdict
from support.certs import TestCA
from support.origin import Origin
from support.wire_client import WireClient

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX descriptors, terminals and signals")

GATE = """
from soth_mitm import HandlerDecision

class Gate:
    def on_request(self, request):
        return HandlerDecision.block(403) if "/no" in request.path else HandlerDecision.ALLOW
"""
HANGS = """
import asyncio
from soth_mitm import HandlerDecision

class Gate:
    async def on_request(self, request):
        if "/hang" in request.path:
            await asyncio.sleep(60)
        return HandlerDecision.ALLOW
"""
HOSTILE = b"x\n13:37:00 forged-line\x1b]0;pwned\xff"


@pytest.fixture(autouse=True)
def _work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTH_MITM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    # a relative entry would not be found from there
    entries = [str(Path(__file__).parents[2] / entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(entries))
    Path("gate.py").write_text(GATE)


@pytest.fixture
def plain_origin() -> Iterator[Origin]:
    with Origin(host="localhost") as running:
        yield running


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def running(stdout: int | None, *options: str, environment: dict[str, str] | None = None) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the proxy with that standard output, None: closed; yields the process and its port, when it listens."""
    port = free_port()
    run = [sys.executable, "-m", "soth_mitm", "run", "--bind", f"127.0.0.1:{port}", "--handler", "gate:Gate", *options]
    if stdout is None:
        run = ["sh", "-c", 'exec "$@" >&-', "sh", *run]
    with subprocess.Popen(
        run, stdout=stdout, stderr=subprocess.PIPE, env=os.environ | (environment or {}), start_new_session=True
    ) as process:
        try:
            while process.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", port), 10).close()
                    break
                except ConnectionRefusedError:
                    continue
            yield process, port
        finally:
            if process.poll() is None:
                process.kill()


def check(process: subprocess.Popen[bytes], port: int, origin: Origin) -> None:
    """Ask for what is blocked, for what is allowed, and again, several times; then end the proxy."""
    for _ in range(3):
        with WireClient(port) as client:
            assert client.connect(f"localhost:{origin.port}").status == 200
            assert [client.request(path, "localhost").status for path in ("/no?k=v", "/bytes/1?k=v", "/no?k=v")] == [403, 200, 403]
    assert [request.target for request in origin.requests] == ["/bytes/1?k=v"] * 3
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert b"Traceback" not in errors, errors


def destination(origin: Origin) -> tuple[str, str]:
    return "--destination", f"localhost:{origin.port}"


def test_a_closed_output(plain_origin: Origin) -> None:
    with running(None, *destination(plain_origin)) as (process, port):
        check(process, port, plain_origin)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_a_full_output(plain_origin: Origin) -> None:
    with open("/dev/full", "wb") as full, running(full.fileno(), *destination(plain_origin)) as (process, port):
        check(process, port, plain_origin)


def test_a_read_only_output(plain_origin: Origin) -> None:
    with open(os.devnull, "rb") as null, running(null.fileno(), *destination(plain_origin)) as (process, port):
        check(process, port, plain_origin)


def test_a_pipe_whose_reader_has_left(plain_origin: Origin) -> None:
    read, write = os.pipe()
    with running(write, *destination(plain_origin)) as (process, port):
        os.close(write)
        assert os.read(read, 10)
        os.close(read)
        check(process, port, plain_origin)


def test_a_terminal_that_is_gone(plain_origin: Origin) -> None:
    ours, theirs = os.openpty()
    with running(theirs, *destination(plain_origin)) as (process, port):
        os.close(theirs)
        assert os.read(ours, 10)
        os.close(ours)
        check(process, port, plain_origin)


def test_a_pipe_that_nobody_reads(plain_origin: Origin) -> None:
    """Its buffer is full after some lines; requests are served all the same, and the proxy ends."""
    read, write = os.pipe()
    long = "x" * 8000
    with running(write, *destination(plain_origin)) as (process, port):
        os.close(write)
        with WireClient(port) as client:
            assert client.connect(f"localhost:{plain_origin.port}").status == 200
            for _ in range(40):
                assert client.request(f"/no/{long}", "localhost").status == 403
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    os.close(read)
    assert process.returncode == 0
    assert plain_origin.requests == []


def test_a_log_that_nobody_reads(plain_origin: Origin) -> None:
    """The pipe behind standard error is full after some records: the loop waits for none of them, nor does the end."""
    Path("gate.py").write_text(
        "import logging\n" + GATE.replace("        return", "        logging.getLogger('gate').warning('x' * 8000)\n        return")
    )
    with running(subprocess.DEVNULL, *destination(plain_origin)) as (process, port):
        with WireClient(port) as client:
            assert client.connect(f"localhost:{plain_origin.port}").status == 200
            for _ in range(40):
                assert client.request("/no", "localhost").status == 403
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert plain_origin.requests == []


def test_a_log_has_what_it_had(plain_origin: Origin) -> None:
    """Time, level, message, and tracebacks of several lines; all of it is there when the process ends."""
    Path("gate.py").write_text(
        "import logging\nlog = logging.getLogger('gate')\n"
        + GATE.replace("        return", "        log.info('quiet')\n        log.error('said', exc_info=KeyError('why'))\n        return")
    )
    with running(subprocess.DEVNULL, *destination(plain_origin)) as (process, port):
        with WireClient(port) as client:
            assert client.connect(f"localhost:{plain_origin.port}").status == 200
            for _ in range(20):
                assert client.request("/no", "localhost").status == 403
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert re.fullmatch(r"(\d\d:\d\d:\d\d ERROR said\nKeyError: 'why'\n){20}", errors.decode())


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "utf-8:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0"},
    ],
    ids=["latin-1", "ascii", "utf-8", "c"],
)
@pytest.mark.skipif(shutil.which("curl") is None or sys.platform != "linux", reason="curl, procfs")
def test_a_hostile_name_in_any_encoding(plain_origin: Origin, environment: dict[str, str]) -> None:
    program = os.fsencode(os.getcwd()) + b"/" + HOSTILE
    shutil.copy(shutil.which("curl") or "", program)
    with running(subprocess.PIPE, *destination(plain_origin), environment=environment) as (process, port):
        for agent in (program, b"curl"):
            url = f"http://localhost:{plain_origin.port}/no?key=secret"
            asked = [agent, "-s", "-o", "/dev/null", "-w", "%{http_code}", "-x", f"http://127.0.0.1:{port}", url]
            assert subprocess.run(asked, capture_output=True, check=False).stdout == b"403"
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, b"")
    lines = output.splitlines()
    assert not any(line.startswith(b"13:37") for line in lines) and b"\x1b" not in output and b"secret" not in output
    blocked = [line for line in lines if b"BLOCKED 403" in line]
    assert len(blocked) == 2 and b"x\\n13:37:00 forged-line\\x1b]0;pwned\\udcff" in blocked[0]
    assert plain_origin.requests == []


def test_what_is_not_intercepted_is_shown(plain_origin: Origin) -> None:
    nobody = free_port()
    options = ("--destination", f"other.example:{plain_origin.port}", "--destination", f"localhost:{nobody}")
    with running(subprocess.PIPE, *options) as (process, port):
        target = f"localhost:{plain_origin.port}"
        for _ in range(2):
            with WireClient(port) as client:
                assert client.connect(target).status == 200
        with WireClient(port) as client:
            client.send(b"\x05\x01\x00")
            client.read_to_end()
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=30)[0].decode()
    first, second = [line for line in output.splitlines() if "tunnel " in line]
    assert f"CONNECT {target} tunnel it is not in interception.destinations, so requests to it are not seen" in first
    assert f"--destination '{target}'" in first
    assert second.endswith("tunnel it is not in interception.destinations")
    (refused,) = [line for line in output.splitlines() if "first bytes" in line]
    assert "refused 400 this is an HTTP proxy and was spoken to in SOCKS" in refused


def test_true_causes() -> None:
    """Each failure of an upstream, and of the handler, has a line with its own words."""
    Path("gate.py").write_text(HANGS)
    with Origin(TestCA("Unknown Root").server_context("localhost"), host="localhost") as untrusted:
        nobody = free_port()
        options = ("--destination", "localhost:*", "--destination", "does-not-exist.invalid:*")
        short = {"SOTH_MITM__HANDLER__REQUEST_TIMEOUT_MS": "200", "SOTH_MITM__UPSTREAM__RETRY_ON_FAILURE": "false"}
        with running(subprocess.PIPE, *options, environment=short) as (process, port):
            for url in (
                f"http://does-not-exist.invalid:{nobody}/dns",
                f"http://localhost:{nobody}/refused",
                f"https://localhost:{untrusted.port}/cert",
                f"http://localhost:{nobody}/hang",
            ):
                with WireClient(port) as client:
                    client.send(f"GET {url} HTTP/1.1\r\nHost: {url.split('/')[2]}\r\n\r\n".encode())
                    assert client.read_answer().status == 502
            process.send_signal(signal.SIGTERM)
            output = process.communicate(timeout=30)[0].decode()
    (dns,) = [line for line in output.splitlines() if "/dns" in line]
    (refused,) = [line for line in output.splitlines() if "/refused" in line]
    (cert,) = [line for line in output.splitlines() if "/cert" in line]
    (hang,) = [line for line in output.splitlines() if "/hang" in line]
    assert "failed 502 cannot resolve does-not-exist.invalid" in dns
    assert f"failed 502 cannot connect to localhost:{nobody}" in refused
    assert "failed 502 the TLS handshake with localhost" in cert and "upstream.ca_bundle_path" in cert
    assert "failed 502 the handler failed: did not return within 0.2 s" in hang


def test_a_handler_that_ends_the_program_ends_it_with_a_word(plain_origin: Origin) -> None:
    Path("gate.py").write_text("class Gate:\n    def on_request(self, request):\n        raise SystemExit('on purpose')\n")
    with running(subprocess.PIPE, *destination(plain_origin)) as (process, port):
        with WireClient(port) as client:
            assert client.connect(f"localhost:{plain_origin.port}").status == 200
            client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            _, errors = process.communicate(timeout=30)
    assert process.returncode == 23
    assert b"Error: the handler raised SystemExit('on purpose'), which ends the proxy" in errors
    assert plain_origin.requests == []


HANGING_NAMES = """
import socket, threading
from soth_mitm import HandlerDecision

find = socket.getaddrinfo

def hang(host, *rest, **more):
    if host == "hangs.invalid":
        open("asked", "w").close()
        threading.Event().wait()
    return find(host, *rest, **more)

socket.getaddrinfo = hang

class Gate:
    def on_request(self, request):
        return HandlerDecision.ALLOW
"""


def test_a_name_server_that_does_not_answer_holds_up_no_end() -> None:
    Path("gate.py").write_text(HANGING_NAMES)
    with running(subprocess.PIPE, "--destination", "hangs.invalid:*") as (process, port), WireClient(port) as client:
        client.send(b"GET http://hangs.invalid/ HTTP/1.1\r\nHost: hangs.invalid\r\n\r\n")
        while not Path("asked").exists():
            assert process.poll() is None
        client.reset()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors


# --- one line of each kind

META = ConnectionMeta(
    UUID(int=1),
    TcpV4(("127.0.0.1", 1), ("127.0.0.1", 2)),
    ProcessInfo(pid=1, bundle_id=None, exe_name="curl", exe_path="/usr/bin/curl", parent_pid=None, parent_process_name=None),
)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Event(kind=EventKind.REQUEST, verdict=Verdict.ALLOWED), None),
        (Event(kind=EventKind.REQUEST, verdict=Verdict.NOT_APPLIED), "would be BLOCKED (monitor) "),
        (Event(kind=EventKind.REQUEST, verdict=Verdict.OTHER_NOT_APPLIED), "would not go on as it is (monitor) "),
        (
            Event(kind=EventKind.REQUEST, verdict=Verdict.UNDECIDED),
            "the handler failed forwarded, because handler.failure_policy is allow",
        ),
        (Event(kind=EventKind.RESPONSE, status=200), None),
        (Event(kind=EventKind.RESPONSE, status=200, is_stream=True), "200 stream 5 ms"),
        (Event(kind=EventKind.FLOW_END, status=204), "204 0 B  5 ms"),
        (Event(kind=EventKind.FLOW_END, status=200, is_stream=True, size=2048), "stream ended 2.0 KiB  5 ms"),
        (Event(kind=EventKind.FLOW_END, status=200, is_stream=True, grpc_status="0", http_version="HTTP/2"), "gRPC 0 OK 0 B  5 ms  h2"),
        (
            Event(kind=EventKind.FLOW_END, status=200, is_stream=True, grpc_status="5", http_version="HTTP/2"),
            "gRPC 5 NOT_FOUND 0 B  5 ms  h2",
        ),
        (Event(kind=EventKind.FLOW_END, status=200, is_stream=True, grpc_status="99"), "gRPC 99 0 B  5 ms"),
        *(
            (Event(kind=EventKind.FLOW_END, status=200, is_stream=True, grpc_status=text), "gRPC, its status is no number 0 B  5 ms")
            for text in ("", "0 OK", "-1", "\u0660", "12345", "0\x1b[2K")
        ),
        (Event(kind=EventKind.FLOW_END, status=204, http_version="HTTP/1.1"), "204 0 B  5 ms"),
        (Event(kind=EventKind.FLOW_END, status=204, http_version="HTTP/2"), "204 0 B  5 ms  h2"),
        (Event(kind=EventKind.FLOW_END, status=418, verdict=Verdict.BLOCKED), "BLOCKED 418 5 ms"),
        (Event(kind=EventKind.FLOW_END, status=200, verdict=Verdict.ANSWERED), "200 by the handler  5 ms"),
        (Event(kind=EventKind.FLOW_END, verdict=Verdict.ABORTED), "aborted by the handler 5 ms"),
        (Event(kind=EventKind.FLOW_END, status=502, cause="cannot resolve h"), "failed 502 cannot resolve h  5 ms"),
        (Event(kind=EventKind.FLOW_END, status=502, verdict=Verdict.FAILED, cause="no"), "failed 502 the handler failed: no  5 ms"),
        (Event(kind=EventKind.FLOW_END, status=403, cause="not listed"), "refused 403 not listed  5 ms"),
        (Event(kind=EventKind.FLOW_END, status=200, size=5, cause="aborted"), "cut 200 aborted  5 ms"),
        (Event(kind=EventKind.FLOW_END, cause="the client closed the connection"), "cut the client closed the connection  5 ms"),
        (Event(kind=EventKind.RESPONSE, status=101, is_stream=True, is_websocket=True), "101 WebSocket opened 5 ms"),
        (
            Event(
                kind=EventKind.FLOW_END, status=101, is_stream=True, is_websocket=True, messages=(3, 5), closed_by="client", close_code=1000
            ),
            "WebSocket closed 1000 by the client 3 messages sent, 5 received  5 ms",
        ),
        (
            Event(kind=EventKind.FLOW_END, status=101, is_websocket=True, messages=(0, 1), closed_by="proxy", close_code=1005),
            "WebSocket closed without a code by the proxy 0 messages sent, 1 received  5 ms",
        ),
        (
            Event(kind=EventKind.FLOW_END, status=101, is_websocket=True, messages=(0, 0), closed_by="nobody"),
            "WebSocket ended without a Close 0 messages sent, 0 received  5 ms",
        ),
        (Event(kind=EventKind.FLOW_END, status=101, is_stream=True, is_websocket=True), "WebSocket ended 5 ms"),
        (Event(kind=EventKind.TUNNEL, cause="handler"), "CONNECT h:1 tunnel by the handler"),
        (Event(kind=EventKind.TUNNEL_END), None),
        (Event(kind=EventKind.REFUSED, status=403, cause="not listed"), "CONNECT h:1 BLOCKED 403 not listed"),
        (Event(kind=EventKind.REFUSED, cause="odd"), "CONNECT h:1 refused closed odd"),
        (Event(kind=EventKind.TLS_FAILED, cause="no cipher suite"), "TLS     h failed no cipher suite"),
    ],
)
def test_the_line_of(event: Event, line: str | None) -> None:
    said: list[str] = []
    lines = RequestLines(lambda *parts: said.append("".join(part if isinstance(part, str) else part[0] for part in parts)))
    whole = {name: getattr(event, name) for name in Event.__struct_fields__}
    lines(Event(**whole | {"meta": META, "method": "GET", "url": "https://h/p?k=v", "seconds": 0.005, "host": "h", "port": 1}))
    if line is None:
        assert said == []
        return
    (text,) = said
    assert re.fullmatch(r"\d\d:\d\d:\d\d curl {13}.*", text)
    assert text[26:].removeprefix("GET     https://h/p?k=… ") == line


def test_the_first_client_that_refuses_our_certificate_is_told_what_to_do() -> None:
    said: list[str] = []
    lines = RequestLines(lambda *parts: said.append("".join(part if isinstance(part, str) else part[0] for part in parts)))
    for refused in (False, True, True):
        lines(Event(kind=EventKind.TLS_FAILED, meta=META, host="h", cause="an alert", certificate_refused=refused))
    assert "soth-mitm ca env" in said[1] and "soth-mitm ca install" in said[1]
    assert said[0].endswith("failed an alert") and said[2].endswith("failed an alert")


def test_a_failed_handshake_with_an_upstream_is_told_by_its_requests_alone() -> None:
    said: list[str] = []
    lines = RequestLines(lambda *parts: said.append(str(parts)))
    lines(Event(kind=EventKind.TLS_FAILED, host="h", port=443, cause="expired"))
    lines(Event(kind=EventKind.FLOW_END, meta=META, method="GET", url="https://h/", status=502, cause="expired"))
    assert len(said) == 1 and "failed 502" in said[0]


def test_lines_that_cannot_be_shown_are_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", encoding="utf-8") as gone:
        display = Display(Console(file=gone))
        display.say("one")
        display.say("two")
        display.close()
    assert len(caplog.records) == 1 and "lines cannot be shown on standard output" in caplog.text
    assert not any(thread.name == "soth-mitm display" for thread in threading.enumerate())


def test_markup_and_controls_in_a_line_stay_text(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w", encoding="latin-1") as out:
        display = Display(Console(file=out))
        display.say("[bold]a[/bold] ", ("b\n\x1b[2J\u202e…東", "red"))
        display.close()
    assert (tmp_path / "out").read_bytes() == b"[bold]a[/bold] b\\n\\x1b[2J\\u202e\\u2026\\u6771\n"


def test_what_found_no_room_is_counted_where_it_is_missing() -> None:
    read, write = os.pipe()
    with open(write, "w", encoding="utf-8") as stream, logging_to(stream):
        log = logging.getLogger("of.nobody")
        # more than the pipe and the queue take together
        for _ in range(LOG_BACKLOG * 2):
            log.warning("x" * 100)
        with open(read, "rb") as reading:
            shown = lost = 0
            # a count stands wherever records are missing: the thread may take some while others still come
            while not (line := reading.readline()).endswith(b" WARNING y\n"):
                if line.endswith(b"x\n"):
                    shown += 1
                    if shown == LOG_BACKLOG:
                        # the pipe holds fewer than these: the queue has room again
                        log.warning("y")
                else:
                    count = re.fullmatch(rb"\((\d+) records of the log could not be shown\)\n", line)
                    assert count is not None, line
                    lost += int(count[1])
    assert lost > 0 and shown + lost == LOG_BACKLOG * 2


def test_a_log_leaves_nothing_behind(tmp_path: Path) -> None:
    before = list(logging.getLogger().handlers), logging.getLogger().level
    with open(tmp_path / "log", "w", encoding="ascii") as stream, logging_to(stream):
        logging.getLogger("of.nobody").warning("é")
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == before
    assert re.fullmatch(rb"\d\d:\d\d:\d\d WARNING \\xe9\n", (tmp_path / "log").read_bytes())
    assert not any(thread.name == "soth-mitm log" for thread in threading.enumerate())
