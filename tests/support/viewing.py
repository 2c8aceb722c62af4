"""A web view that runs, in a thread of its own, on a port of its own."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Any, NamedTuple

from soth_mitm.views.serving import ViewServer, open_view_socket
from soth_mitm.views.source import FlowSource


class Reply(NamedTuple):
    """A response, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RunningView:
    """A view, and a client for it that is no browser."""

    def __init__(self, server: ViewServer) -> None:
        self.server = server
        self.url = server.url
        self.address = server.address
        self.port = int(self.address.rstrip("/").rpartition(":")[2])
        self.key = ""

    @property
    def secret(self) -> str:
        return self.url.partition("#secret=")[2]

    def begin(self) -> RunningView:
        """Open a session."""
        self.key = self.ask("/api/session", method="POST", body=json.dumps({"secret": self.secret})).json["key"]
        return self

    def connection(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=30)

    def headers(self, **named: str | None) -> dict[str, str]:
        """Return the fields of a request of the page, and others; None leaves one out."""
        given = {"Host": f"127.0.0.1:{self.port}", "Authorization": f"Bearer {self.key}" if self.key else None}
        given |= {name.replace("_", "-"): value for name, value in named.items()}
        return {name: value for name, value in given.items() if value is not None}

    def ask(self, path: str, *, method: str = "GET", body: str | bytes | None = None, **named: str | None) -> Reply:
        connection = self.connection()
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers(**named).items():
                connection.putheader(name, value)
            data = body.encode() if isinstance(body, str) else body
            if data is not None:
                connection.putheader("Content-Length", str(len(data)))
            connection.endheaders(data)
            response = connection.getresponse()
            return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        finally:
            connection.close()

    @contextmanager
    def events(self, path: str) -> Iterator[Iterator[tuple[str, Any]]]:
        """Read a stream of events while the block runs."""
        connection = self.connection()
        try:
            connection.request("GET", path, headers=self.headers())
            response = connection.getresponse()
            assert response.status == 200, response.read()
            yield _events(response)
        finally:
            connection.close()


def _events(response: HTTPResponse) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in response:
        if line.startswith(b"event: "):
            name = line[7:].strip().decode()
        elif line.startswith(b"data: "):
            yield name, json.loads(line[6:])


@contextmanager
def viewing(source: FlowSource, bind: str = "127.0.0.1:0") -> Iterator[RunningView]:
    """Serve a view of `source` while the block runs."""
    server = ViewServer(source, open_view_socket(bind))
    thread = threading.Thread(target=asyncio.run, args=(server.serve(),), name="view")
    thread.start()
    try:
        yield RunningView(server)
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()
