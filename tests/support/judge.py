"""A handler that decides as each request asks for in its `X-Decide` header, and the uploads that it is asked about."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest, RawResponse
from support.origin_answers import pattern
from support.tap import Journal

BLOCK = HandlerDecision.block(418, "blocked\n")


class Judge(InterceptHandler):
    """Notes each request as `asked` in the journal, then answers by its `X-Decide`:

    `allow`, `block` at once; `raise`; `suspend`, `suspend-block` when the test calls `release`; `hang` never.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._lock = threading.Lock()

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        wish = request.headers.get("x-decide", "allow")
        if wish.startswith(("suspend", "hang")):
            future = asyncio.get_running_loop().create_future()
            with self._lock:
                self._waiting.append((future.get_loop(), future))
            self.journal.note("asked", request)
            await future
        else:
            self.journal.note("asked", request)
        if wish == "raise":
            raise RuntimeError("on purpose")
        return BLOCK if wish.endswith("block") else HandlerDecision.ALLOW

    async def on_response(self, response: RawResponse) -> None:
        self.journal.note("shown", response)

    def release(self) -> None:
        """Let what has suspended go on."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for loop, future in waiting:
            loop.call_soon_threadsafe(_finish, future)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@dataclass(frozen=True)
class Upload:
    """A request with content of `size` bytes, framed as `framing` says."""

    size: int
    framing: str
    decide: str = "allow"
    extra: str = ""

    @property
    def content(self) -> bytes:
        return pattern(self.size)

    @property
    def fields(self) -> str:
        if self.framing != "length":
            return "tRaNsFeR-eNcOdInG:   chunked\r\nTrailer: X-End\r\n"
        return f"Content-Length:{self.size}\r\n" if self.size else ""

    @property
    def head(self) -> bytes:
        return f"POST /up?{self.size} HTTP/1.1\r\nhOsT: localhost\r\nX-Decide: {self.decide}\r\n{self.fields}{self.extra}\r\n".encode()

    @property
    def pieces(self) -> list[bytes]:
        """The body on the wire; cut where a decision on its first part might come."""
        data = self.content
        if self.framing == "length":
            return [data] if data else []
        decorated = self.framing == "trailers"
        edges = sorted({0, self.size // 3, self.size // 2, self.size})
        pieces = [
            b"%0*X%b\r\n%b\r\n" % (1 + 3 * decorated, end - start, b';a=b;c="d e"' * decorated, data[start:end])
            for start, end in zip(edges, edges[1:], strict=False)
        ]
        last = b"000;last\r\nX-End: yes\r\nx-end:  twice\t\r\n\r\n" if decorated else b"0\r\n\r\n"
        return [*pieces, last]

    @property
    def wire(self) -> bytes:
        return self.head + b"".join(self.pieces)
