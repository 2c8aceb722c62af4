"""`soth-mitm flows`: what it prints of a store, its exit codes, and that nothing of a peer acts on the terminal."""

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from soth_mitm.cli.commands import cli
from soth_mitm.observe import SqliteSink
from soth_mitm.observe.store.reader import StoreReader
from support.made_flows import exchange, fields, mixed, model_stream, refused, sink_info, tunnel, websocket

AGES = 1e10
ODD = "\x1b]0;owned\x07\x1b[31m\u202e\x9b1m\r"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("flows") / "flows.db"
    sink = SqliteSink(path, min_free_bytes=0, max_age=AGES)
    sink.open(sink_info(pid=os.getpid(), started=time.time()))
    sink.accept(list(mixed(40)))
    body = json.dumps({"note": ODD}).encode()
    odd = fields(host="api.example.com", content_type="application/json", authorization="Bearer abcdefghijklmnopqrst")
    sink.accept(
        [
            exchange(101, body, ODD.encode(), path="/odd" + ODD, request_fields=(*odd, (b"x-odd", ODD.encode())), response_fields=()),
            refused(102),
            tunnel(103),
            *websocket(104, ["hello", ODD]),
            exchange(105, status=503, outcome="upstream_error", cause=f"refused {ODD}"),
            *model_stream(106),
        ]
    )
    sink.close(5)
    yield path


def flows(store: Path, *arguments: str, width: int = 80) -> Result:
    return CliRunner(env={"COLUMNS": str(width)}).invoke(cli, ("flows", *arguments, "--store", str(store)), catch_exceptions=False)


def ids(result: Result) -> list[int]:
    return [json.loads(line)["id"] for line in result.stdout.splitlines()]


def on_terminal(width: int, *command: str) -> str:
    """Run a command on a terminal of this width, and return what it writes there."""
    import pty

    program = (
        "import os, struct, fcntl, termios, sys, runpy\n"
        f"fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack('HHHH', 40, {width}, 0, 0))\n"
        f"sys.argv = ['soth-mitm', *{list(command)!r}]\n"
        "runpy.run_module('soth_mitm', run_name='__main__')\n"
    )
    leader, follower = pty.openpty()
    environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")} | {"TERM": "xterm", "NO_COLOR": "1"}
    with subprocess.Popen([sys.executable, "-c", program], stdin=follower, stdout=follower, stderr=follower, env=environ) as process:
        os.close(follower)
        out = b""
        while True:
            try:
                data = os.read(leader, 65536)
            except OSError:
                # the other end is closed
                break
            if not data:
                break
            out += data
        os.close(leader)
        process.wait()
    return re.sub(r"\x1b\[[0-9;]*m", "", out.decode().replace("\r\n", "\n"))


def test_list_in_a_pipe_is_not_cut(store: Path) -> None:
    lines = flows(store, "list", "-n", "6").stdout.splitlines()
    assert lines[0].split() == ["ID", "TIME", "PROGRAM", "REQUEST", "STATUS", "TOOK", "TOKENS", "/", "SIZE"]
    assert lines[1].split()[2:] == ["claude", "POST", "api.anthropic.com/v1/messages", "200", "4.31", "s", "14,902", "→", "318"]
    assert "failed" in lines[2] and "websocket" in lines[3] and "tunnel" in lines[4] and "blocked" in lines[5]
    assert len(lines) == 7


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
@pytest.mark.parametrize("width", [80, 140])
def test_list_fits_the_terminal(store: Path, width: int) -> None:
    out = on_terminal(width, "flows", "list", "-n", "12", "--store", str(store))
    *lines, last, _ = out.split("\n")
    assert len(lines) == 13
    assert max(map(len, lines)) <= width
    assert "46 flows, the newest 12 of them shown (--all).  soth-mitm flows show" in last


def test_list_filters(store: Path) -> None:
    assert ids(flows(store, "list", "--json", "is:ws", "since:2020-01-01", "path:/socket", "-n", "1"))
    assert len(ids(flows(store, "list", "--json", "--all"))) == 46
    assert flows(store, "list", "status:503").stdout.count("\n") == 2


def test_a_dash_is_not(store: Path) -> None:
    assert len(ids(flows(store, "list", "--json", "--all", "-is:ws", "-(status:200)"))) < 46
    result = flows(store, "list", "--alll")
    assert result.exit_code == 2 and "No such option" in result.stderr


def test_nothing_matches(store: Path) -> None:
    for command in (
        ("list", "host:nowhere"),
        ("search", "zebra"),
        ("stats", "host:nowhere"),
        ("show", "999999"),
        ("export", "--ndjson", "pid:1"),
    ):
        result = flows(store, *command)
        assert (result.exit_code, result.stdout) == (1, ""), command
        assert result.stderr


def test_a_wrong_filter_is_pointed_at(store: Path) -> None:
    result = flows(store, "list", "is:llm", "hots:x")
    assert result.exit_code == 2
    assert '  is:llm hots:x\n         ^\n  no field "hots", did you mean "host"?\n' in result.stderr


def test_no_store(tmp_path: Path) -> None:
    result = flows(tmp_path / "none.db", "list")
    assert result.exit_code == 23
    assert "there is no flow store at" in result.stderr


def test_show_a_call_of_a_model(store: Path) -> None:
    out = flows(store, "show", "-1").stdout
    assert "POST api.anthropic.com/v1/messages   200 in 4.31 s" in out
    assert "input 14,902 (13,824 from cache, 611 to cache)   output 318" in out
    assert "stopped by tool_use" in out
    assert "user      The retry test is flaky on CI." in out
    assert "assistant I will look at how the deadline is computed." in out
    assert '→ read_file {"path": "src/retry.py"}' in out


def test_show_ends_with_what_is_new(tmp_path: Path) -> None:
    """Of a conversation the last messages, tools and their results among them."""
    call = {"type": "tool_use", "id": "t1", "name": "bash", "input": {"command": "ls"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "a.py\x1b[31m"}
    said = [("user", "Look."), ("assistant", [call]), ("user", [result])]
    asked = {"model": "m", "messages": [{"role": role, "content": content} for role, content in said]}
    answered = {
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "One file."}],
        "stop_reason": "end_turn",
    }
    sink = SqliteSink(tmp_path / "flows.db", min_free_bytes=0, max_age=AGES)
    sink.open(sink_info())
    headers = fields(host="api.anthropic.com", content_type="application/json", anthropic_version="2023-06-01")
    body = json.dumps(asked).encode()
    sink.accept([exchange(1, body, json.dumps(answered).encode(), host="api.anthropic.com", path="/v1/messages", request_fields=headers)])
    sink.close(5)
    out = flows(tmp_path / "flows.db", "show", "1").stdout
    assert "1 earlier message:" in out and "Look." not in out
    assert '→ bash {"command":' in out and "a.py\\x1b[31m" in out and "assistant One file." in out


def test_show_parts(store: Path) -> None:
    assert json.loads(flows(store, "show", "-1", "--request", "--raw").stdout)["stream"] is True
    assert flows(store, "show", "-1", "--raw").stdout.startswith("event: message_start\n")
    assert flows(store, "show", "-1", "--events").stdout.count("content_block_delta ") == 4
    assert "x-api-key: masked #" in flows(store, "show", "-1", "--request").stdout
    shown = json.loads(flows(store, "show", "-1", "--json").stdout)
    assert shown["detail"]["call"]["tokens"]["output"] == 318
    assert shown["request"]["headers"][0] == ["host", "api.anthropic.com"]


def test_search_shows_a_line_of_context(store: Path) -> None:
    result = flows(store, "search", "deadline", "comp")
    assert "I will look at how the deadline is computed." in result.stdout
    assert ids(flows(store, "search", "deadline", "--filter", "id:1", "--json")) == []


def test_nothing_acts_on_the_terminal(store: Path) -> None:
    commands = [("list", "--all"), ("stats",), ("search", "owned"), ("list", "--all", "--json"), ("export", "--ndjson")]
    with StoreReader(store) as reader:
        numbers = [row.id for row in reader.flows("id>40").rows]
    for number in map(str, numbers):
        commands += [("show", number), ("show", number, "--request"), ("show", number, "--response"), ("show", number, "--events")]
        commands += [("show", number, "--json"), ("export", "--curl", number)]
    for command in commands:
        result = flows(store, *command)
        assert result.exit_code in (0, 1, 23), result.output
        bad = {each for each in result.output if not each.isprintable() and each != "\n"}
        assert not bad, (command, bad)


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell")
def test_curl_says_what_was_sent(store: Path, tmp_path: Path) -> None:
    with StoreReader(store) as reader:
        (odd,) = reader.flows("path:/odd").rows
    result = flows(store, "export", "--curl", str(odd.id))
    assert "authorization is masked, and left out" in result.stderr
    assert "authorization" not in result.stdout
    script = f"curl() {{ printf '%s\\0' \"$@\"; }}\n{result.stdout}"
    words = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout.decode().split("\0")
    assert words[0] == "--globoff" and words[1] == odd.url
    assert words[words.index("--data-raw") + 1] == json.dumps({"note": ODD})
    assert f"x-odd: {ODD}" in words
    assert flows(store, "export", "--curl", str(odd.id + 2)).exit_code == 23


def test_ndjson(store: Path) -> None:
    (line,) = flows(store, "export", "--ndjson", "id>40", "is:ws").stdout.splitlines()
    assert [message.get("text") for message in json.loads(line)["messages"]][:1] == ["hello"]


def test_har(store: Path, tmp_path: Path) -> None:
    assert flows(store, "export", "--har", str(tmp_path / "x.har"), "id>40").exit_code == 0
    entries = json.loads((tmp_path / "x.har").read_text())["log"]["entries"]
    assert [entry["_sothmitm"]["outcome"] for entry in entries] == ["answered", "tunnelled", "upstream_error", "answered"]
    assert flows(store, "export", "--har", str(tmp_path / "y.har"), "is:tunnel", "id>40").exit_code == 1
    assert flows(store, "export", "--har", str(tmp_path / "y.har"), "is:tunnel", "id>40", "--tunnels").exit_code == 0
    assert flows(store, "export").exit_code == 2


def test_stats(store: Path) -> None:
    out = flows(store, "stats").stdout
    assert out.startswith("46 flows")
    found = json.loads(flows(store, "stats", "--json").stdout)
    assert found["flows"] == 46 and found["calls"] == found["views"]["llm"] and found["dropped"] == 0


def test_prune(tmp_path: Path) -> None:
    path = tmp_path / "flows.db"
    sink = SqliteSink(path, min_free_bytes=0, max_age=AGES)
    sink.open(sink_info())
    sink.accept([exchange(number, response=b"x" * 5000) for number in range(1, 11)])
    sink.close(5)
    refused_ = CliRunner().invoke(cli, ("flows", "prune", "id<3", "--store", str(path)), input="n\n")
    assert refused_.exit_code == 23
    assert "2 flows removed" in flows(path, "prune", "id<3", "--yes").stdout
    assert len(ids(flows(path, "list", "--json"))) == 8
    assert flows(path, "prune", "id<3", "--yes").exit_code == 1
    assert flows(path, "prune").exit_code == 2
    assert "8 flows removed" in flows(path, "prune", "--to", "1k").stdout
    assert "0 flows removed" in flows(path, "prune", "--to", "1G").stdout


def test_path(tmp_path: Path) -> None:
    result = CliRunner(env={"SOTH_MITM_STATE_DIR": str(tmp_path)}).invoke(cli, ("flows", "path"))
    assert result.stdout.strip() == str(tmp_path / "flows.db")


def test_watch_prints_what_comes(tmp_path: Path) -> None:
    path = tmp_path / "flows.db"
    sink = SqliteSink(path, min_free_bytes=0, max_age=AGES)
    sink.open(sink_info())
    command = [sys.executable, "-m", "soth_mitm", "flows", "watch", "--json", "--store", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = path.with_name("flows.db-views")
        until = time.monotonic() + 60
        while not (folder.exists() and list(folder.iterdir())):
            assert time.monotonic() < until
        number = 0
        found: list[int] = []
        while not found:
            # the first ones may come before it has looked where the file ends
            number += 1
            sink.accept([exchange(number)])
            if select.select([process.stdout], [], [], 0.1)[0]:
                found.append(json.loads(process.stdout.readline())["id"])
        process.terminate()
    sink.close(5)
    assert found[0] <= number
