"""`soth-mitm flows replay`: a kept request, sent again through a proxy of its own, and both answers beside each other."""

import difflib
import http.client
import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from soth_mitm._dataplane.http.messages import RawRequest
from soth_mitm.addresses import parse_target
from soth_mitm.cli.flow_lines import BAD, FAINT, duration
from soth_mitm.cli.flow_page import pretty_body
from soth_mitm.cli.request_lines import size_text
from soth_mitm.config import MitmConfig
from soth_mitm.decision import HandlerDecision, Upstream
from soth_mitm.escaping import shown
from soth_mitm.handler import InterceptHandler
from soth_mitm.observe.flow_curl import MASKED
from soth_mitm.observe.store.flow_content import FlowContent
from soth_mitm.observe.store.sink import SqliteSink
from soth_mitm.proxy.proxy import MitmProxyBuilder
from soth_mitm.tls.ca import generate_ca

SECONDS = 60.0
"""How long the answer may let wait for its next octets."""
END_SECONDS = 5.0
DIFF_LINES = 60
# of the connection that is made, or of the coding that was removed from the body
_OWN = ("host", "content-length", "connection", "proxy-connection", "transfer-encoding", "te", "keep-alive", "upgrade", "accept-encoding")
# different in each answer, and of no meaning
_ALWAYS_NEW = ("date", "age", "set-cookie", "cf-ray", "x-request-id", "request-id", "etag", "expires", "last-modified")


class Replay(NamedTuple):
    """A request to be sent."""

    method: str
    scheme: str
    host: str
    port: int
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class NotSendableError(Exception):
    """The request cannot be sent as it was; the message says what is missing, and how to give it."""


def replay_of(content: FlowContent, given: Mapping[str, str], *, anyway: bool) -> Replay:
    """Return the request of a kept flow; `given` are values of header fields in place of those that were sent, by names in lower case.

    Raises `NotSendableError` where something was masked or not kept, unless it is to be sent `anyway`.
    """
    row, request = content.row, content.request
    if row.kind != "http":
        raise NotSendableError(f"flow {row.id} is no request that can be sent again, but a {row.kind}")
    lacks = []
    headers = []
    for raw_name, value in request.fields:
        name = raw_name.decode("latin-1")
        lower = name.lower()
        if lower in given or lower in _OWN or lower.startswith(":") or (lower == "content-encoding" and not request.is_undecoded):
            continue
        if MASKED.search(value):
            lacks.append(f"{name} is masked; give --credential {lower}=env:NAME, or --set {lower}=VALUE")
        else:
            headers.append((name, value.decode("latin-1")))
    headers += given.items()
    if "=masked%20" in row.path:
        lacks.append("a value of the URL is masked")
    if MASKED.search(request.body):
        lacks.append("a value of the body is masked")
    if request.is_shortened or request.is_binary or request.is_undecoded:
        lacks.append("the body is not kept, or not all of it")
    if lacks and not anyway:
        raise NotSendableError("\n".join([*lacks, "or send it without, with --anyway"]))
    return Replay(row.method, row.scheme, row.host, row.port, row.path, tuple(headers), request.body)


def credential_value(text: str) -> str:
    """Return the value that `env:NAME` or `file:PATH` names. `ValueError` says why there is none."""
    kind, _, place = text.partition(":")
    if kind == "env" and place:
        value = os.environ.get(place)
        if value is None:
            raise ValueError(f"the variable {place} is not set")
        return value
    if kind == "file" and place:
        return Path(place).read_text(encoding="utf-8").strip()
    raise ValueError(f"{text!r} is neither env:NAME nor file:PATH; a value itself does not belong here")


class _Elsewhere(InterceptHandler):
    """Sends every request to another place."""

    def __init__(self, to: Upstream) -> None:
        self._to = to

    def on_request(self, request: RawRequest) -> HandlerDecision:
        """Let the request go there."""
        return HandlerDecision.forward(to=self._to)


def send(replay: Replay, store: Path, *, to: tuple[str, int] | None, upstream_ca: str | None) -> None:
    """Send it through a proxy of its own, which keeps it in `store`. Raises what a start raises, and `OSError` where nothing comes back."""
    config = MitmConfig()
    config.bind = "127.0.0.1:0"
    config.interception.destinations.append("*:*")
    if upstream_ca is not None:
        config.upstream.ca_bundle_path = upstream_ca
    ca = generate_ca("soth-mitm, of one replay", validity_days=2)
    handler = None if to is None else _Elsewhere(Upstream(*to, tls=replay.scheme == "https"))
    with tempfile.TemporaryDirectory(prefix="soth-mitm-") as folder:
        builder = MitmProxyBuilder(config, handler).with_ca(ca).with_event_sink(SqliteSink(store, replayed=True))
        handle = builder.build().start_in_thread()
        try:
            certificate = Path(folder) / "ca.pem"
            certificate.write_bytes(ca.cert_pem)
            _request(replay, handle.address, handle.port, certificate)
        finally:
            handle.shutdown(END_SECONDS)
            handle.wait_closed()


def _request(replay: Replay, address: str, port: int, certificate: Path) -> None:
    connection: http.client.HTTPConnection
    if replay.scheme == "https":
        context = ssl.create_default_context(cafile=str(certificate))
        connection = http.client.HTTPSConnection(address, port, timeout=SECONDS, context=context)
        connection.set_tunnel(replay.host, replay.port)
        target = replay.path
    else:
        connection = http.client.HTTPConnection(address, port, timeout=SECONDS)
        authority = f"[{replay.host}]" if ":" in replay.host else replay.host
        target = f"http://{authority}:{replay.port}{replay.path}"
    try:
        connection.putrequest(replay.method, target, skip_accept_encoding=True)
        for name, value in replay.headers:
            connection.putheader(name, value.encode("latin-1"))
        if replay.body or replay.method in ("POST", "PUT", "PATCH"):
            connection.putheader("Content-Length", str(len(replay.body)))
        connection.endheaders(replay.body or None)
        response = connection.getresponse()
        while response.read(65536):
            continue
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"the request was not answered: {error!r}") from error
    finally:
        connection.close()


def compared(before: FlowContent, after: FlowContent) -> dict[str, Any]:
    """Return what is different, for programs."""
    return {
        "id": before.row.id,
        "replayed": after.row.id,
        "status": [before.row.status, after.row.status],
        "took": [before.row.took, after.row.took],
        "headers": {name: list(values) for name, values in _changed_headers(before, after)},
        "body_is_equal": before.response.body == after.response.body,
    }


def show_compared(console: Console, before: FlowContent, after: FlowContent) -> None:
    """Print both answers beside each other, and what is different in their bodies."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=FAINT)
    table.add_column("")
    table.add_column(f"flow {before.row.id}", overflow="fold")
    table.add_column(f"flow {after.row.id}, now", overflow="fold")
    rows = [
        ("status", str(before.row.status), str(after.row.status)),
        ("took", duration(before.row.took), duration(after.row.took)),
        ("size", size_text(before.row.response_bytes), size_text(after.row.response_bytes)),
    ]
    rows += [(name, ", ".join(values[0]), ", ".join(values[1])) for name, values in _changed_headers(before, after)]
    for name, one, two in rows:
        differs = one != two and name not in ("took", "size")
        table.add_row(shown(name), shown(one), Text(shown(two), BAD if differs else ""))
    console.print(table)
    if after.row.reason:
        console.print(Text(shown(after.row.reason), BAD), soft_wrap=True)
    console.print()
    if before.response.body == after.response.body:
        console.print(Text("the bodies are the same", FAINT))
        return
    lines = list(difflib.unified_diff(pretty_body(before.response), pretty_body(after.response), "before", "now", n=2, lineterm=""))
    for line in lines[:DIFF_LINES]:
        console.print(Text(line, {"+": "green", "-": "red", "@": FAINT}.get(line[:1], "")), soft_wrap=True)
    if len(lines) > DIFF_LINES:
        console.print(Text(f"… {len(lines) - DIFF_LINES} more lines", FAINT))


def _changed_headers(before: FlowContent, after: FlowContent) -> Iterator[tuple[str, tuple[list[str], list[str]]]]:
    names = dict.fromkeys(name.decode("latin-1").lower() for content in (before, after) for name, _ in content.response.fields)
    for name in names:
        values = before.response.values(name), after.response.values(name)
        if values[0] != values[1] and name not in _ALWAYS_NEW and name not in _OWN:
            yield name, values


def parse_place(text: str) -> tuple[str, int]:
    """Read `HOST:PORT`. Raises `click.BadParameter`."""
    try:
        return parse_target(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} {error}") from error
