"""A proxy with a flow store: what real clients and origins said is in it, and the commands find it."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from soth_mitm.observe.store.reader import StoreReader
from support.certs import TestCA
from support.origin import Origin, Request, ScriptedConnection

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX shells")
COMMAND = (sys.executable, "-m", "soth_mitm")
KEY = "sk-live-0123456789abcdef"


@pytest.fixture(autouse=True)
def _work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTH_MITM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


def answer(connection: ScriptedConnection, request: Request) -> object:
    """An API that streams, compresses and echoes."""
    if request.method == "POST":
        connection.read_body()
    if request.path.startswith("/v1/chat"):
        chunk: dict[str, Any] = {"id": "c1", "object": "chat.completion.chunk", "model": "gpt-x"}
        said = [chunk | {"choices": [{"index": 0, "delta": {"content": word}}]} for word in ("The heron ", "stands ", "still.")]
        end = chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        usage = chunk | {"choices": [], "usage": {"prompt_tokens": 21, "completion_tokens": 7}}
        events = [f"data: {json.dumps(each)}\n\n" for each in (*said, end, usage)]
        body = "".join([*events, "data: [DONE]\n\n"]).encode()
        return connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    text = gzip.compress(json.dumps({"path": request.path, "password": "correct horse battery staple"}).encode())
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    return connection.send(head % len(text) + text)


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Origin]:
    ca = TestCA("Origin Root")
    (tmp_path / "roots.pem").write_bytes(ca.cert_pem)
    with Origin(ca.server_context("localhost"), host="localhost") as running:
        running.script(answer)
        yield running


def execute(*command: str, store: str = "flows.db") -> "subprocess.CompletedProcess[str]":
    arguments = [*COMMAND, "exec", "--upstream-ca", "roots.pem", "--store", store, "--", *command]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=100)


def flows(*arguments: str, store: str = "flows.db") -> "subprocess.CompletedProcess[str]":
    command = [*COMMAND, "flows", *arguments, "--store", store]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def test_what_a_command_said_is_kept_and_found(origin: Origin, tmp_path: Path) -> None:
    body = json.dumps(
        {"model": "gpt-x", "stream": True, "stream_options": {"include_usage": True}, "messages": [{"role": "user", "content": "Why?"}]}
    )
    script = (
        f"curl -sSo a {origin.url('/items?api_key=' + KEY)} -H 'Authorization: Bearer {KEY}'; "
        f"curl -sSo a {origin.url('/v1/chat/completions')} -H 'Content-Type: application/json' -d '{body}'"
    )
    ended = execute("sh", "-c", script)
    assert ended.returncode == 0, ended.stderr
    with StoreReader(tmp_path / "flows.db") as reader:
        call, plain = reader.flows("-is:tunnel").rows
        assert (plain.method, plain.status, plain.outcome, plain.state) == ("GET", 200, "answered", "over")
        assert plain.program == "curl" and plain.pid is not None
        content = reader.flow(plain.id)
        assert content is not None
        assert plain.path.startswith("/items?api_key=masked") and json.loads(content.response.body)["password"].startswith("masked #")
        assert "horse" not in content.response.text
        assert content.header_values("authorization")[0].startswith("Bearer masked #")
        assert (call.provider, call.model, call.tokens_in, call.tokens_out, call.stop) == ("openai-compatible", "gpt-x", 21, 7, "stop")
        assert call.first_token is not None and call.took is not None and 0 <= call.first_token <= call.took
        talked = reader.flow(call.id)
        assert talked is not None and talked.detail.call is not None
        assert talked.detail.call["text"] == "The heron stands still."
        assert len(talked.events()) == 6
        (session,) = reader.sessions()
        assert session.dropped == 0 and session.ended is not None
    found = flows("search", "heron", "stan", "--json")
    assert [json.loads(line)["id"] for line in found.stdout.splitlines()] == [call.id]
    assert KEY not in (tmp_path / "flows.db").read_bytes().decode("latin-1")
    assert "The heron stands still." in flows("show", str(call.id)).stdout
    assert flows("list", "status>=400").returncode == 1


def test_nothing_is_kept_if_that_is_asked(origin: Origin, tmp_path: Path) -> None:
    arguments = [*COMMAND, "exec", "--upstream-ca", "roots.pem", "--no-store", "--", "curl", "-sSo", "a", origin.url("/x")]
    assert subprocess.run(arguments, capture_output=True, check=False, timeout=100).returncode == 0
    assert not list((tmp_path / "state").rglob("*"))
    both = [*COMMAND, "exec", "--store", "x.db", "--no-store", "--", "true"]
    assert subprocess.run(both, capture_output=True, check=False, timeout=100).returncode == 2


def test_a_store_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no store " * 1000)
    ended = subprocess.run(
        [*COMMAND, "exec", "--store", "notes.txt", "--", "true"], capture_output=True, text=True, check=False, timeout=100
    )
    assert ended.returncode == 21 and "notes.txt" in ended.stderr
    # without --store the command runs all the same
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "flows.db").write_text("no store " * 1000)
    ended = subprocess.run([*COMMAND, "exec", "--", "true"], capture_output=True, text=True, check=False, timeout=100)
    assert ended.returncode == 0


def test_replay(origin: Origin, tmp_path: Path) -> None:
    ended = execute("curl", "-sSo", "a", origin.url("/again"), "-H", f"Authorization: Bearer {KEY}", "-d", '{"ask": 1}')
    assert ended.returncode == 0, ended.stderr
    refused = flows("replay", "-1", "--upstream-ca", "roots.pem")
    assert refused.returncode == 23 and "--credential authorization=env:NAME" in refused.stderr
    os.environ["REPLAY_KEY"] = f"Bearer {KEY}"
    try:
        done = flows(
            "replay", "-1", "--upstream-ca", "roots.pem", "--credential", "authorization=env:REPLAY_KEY", "--set", "x-new=1", "--json"
        )
    finally:
        del os.environ["REPLAY_KEY"]
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["status"] == [200, 200] and told["body_is_equal"] is True
    first, second = origin.wait_requests(2)
    assert (first.method, first.path, first.body) == (second.method, second.path, second.body)
    assert f"Authorization: Bearer {KEY}".encode().lower() in second.raw_head.lower() and b"x-new: 1" in second.raw_head.lower()
    with StoreReader(tmp_path / "flows.db") as reader:
        (again,) = reader.flows("is:replayed -is:tunnel").rows
        assert again.id == told["replayed"]
    shown = flows("replay", "1", "--upstream-ca", "roots.pem", "--anyway", "--set", "a=b")
    assert shown.returncode == 0 and "the bodies are the same" in shown.stdout
