"""The web view's HTTP server: one page, and the questions that it asks about flows. It changes nothing.

The loop that serves never waits for a disk: whatever reads the store runs in a thread.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.resources import files
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from soth_mitm.errors import FilterError, StoreError
from soth_mitm.views.access import SESSION_PATH, App, Guard, Refusal, Sessions
from soth_mitm.views.answers import Answers
from soth_mitm.views.source import Changes, FlowSource, Side

T = TypeVar("T")

# what a page asks for at once
MOST_LINES = 400
MOST_MESSAGES = 1000
MOST_IN_REQUEST = 4096
# no sooner than this after the last one, a page is told what changed
CHANGE_SECONDS = 0.1
# a proxy between, or a browser, may end what is silent
SILENT_SECONDS = 15.0
# figures of the whole store are read again after this many times what reading them took, and a second at least
OVERVIEW_COST = 20.0
OVERVIEW_SECONDS = 1.0
# and this much later still, if nothing was written
IDLE_SECONDS = 4.0
# threads that read the store for pages
READERS = 4

_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")


def page_files() -> dict[str, tuple[bytes, str]]:
    """Return the files of the page by their paths, each with its media type."""
    found = {}
    for file in files("soth_mitm.views").joinpath("web").iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in _TYPES:
            found["/" if file.name == "index.html" else f"/{file.name}"] = (file.read_bytes(), _TYPES[suffix])
    return found


class View:
    """The view of one source, for pages that are opened with its `sessions`."""

    def __init__(self, source: FlowSource, sessions: Sessions) -> None:
        self._source = source
        self._sessions = sessions
        self._answers = Answers(source)
        self._limiter = anyio.CapacityLimiter(READERS)
        self._overview: tuple[float, int, bytes] | None = None
        self._overview_lock = asyncio.Lock()
        self._generation = 0
        """Counts what the watching thread says."""
        self._waiting: list[asyncio.Future[None]] = []
        self._unwatch: Callable[[], None] = lambda: None
        self._is_ending = False

    def app(self, host: str, port: int) -> App:
        """Return the application, for a server that listens there."""
        routes = [Route(path, functools.partial(_file, *content)) for path, content in page_files().items()]
        routes += [
            Route(SESSION_PATH, self._open_session, methods=["POST"]),
            Route("/api/overview", self._get_overview),
            Route("/api/flows", self._get_index),
            Route("/api/lines", self._get_lines),
            Route("/api/flows/{flow:int}", self._get_flow),
            Route("/api/flows/{flow:int}/messages", self._get_messages),
            Route("/api/flows/{flow:int}/conversation", self._get_conversation),
            Route("/api/flows/{flow:int}/curl", self._get_curl),
            Route("/api/flows/{flow:int}/{side}/body", self._get_body),
            Route("/api/changes", self._get_changes),
            Route("/api/export", self._get_export),
        ]
        handlers: dict[Any, Callable[[Request, Exception], Response]] = {
            FilterError: _filter_error,
            StoreError: _store_error,
            _NotKept: _not_kept,
        }
        return Guard(Starlette(routes=routes, exception_handlers=handlers), self._sessions, host, port)

    async def _read(self, read: Callable[..., T], *arguments: object) -> T:
        return await anyio.to_thread.run_sync(functools.partial(read, *arguments), limiter=self._limiter)

    async def _open_session(self, request: Request) -> Response:
        content = b""
        async for piece in request.stream():
            content += piece
            if len(content) > MOST_IN_REQUEST:
                return _error(413, "the request is too long")
        try:
            given = msgspec.json.decode(content, type=dict[str, str])
        except msgspec.DecodeError:
            given = {}
        key = self._sessions.exchange(given.get("secret", ""))
        return _error(*key) if isinstance(key, Refusal) else _json({"key": key})

    async def _get_overview(self, request: Request) -> Response:
        return Response(await self._current_overview(), media_type="application/json")

    async def _current_overview(self) -> bytes:
        async with self._overview_lock:
            now = time.monotonic()
            known = self._overview
            # without a commit only the passing of time changes it, or the end of a proxy
            if known is None or now >= known[0] + (0 if known[1] != self._generation else IDLE_SECONDS):
                generation = self._generation
                content = msgspec.json.encode(await self._read(self._source.overview))
                done = time.monotonic()
                self._overview = (done + max(OVERVIEW_SECONDS, OVERVIEW_COST * (done - now)), generation, content)
            assert self._overview is not None
            return self._overview[2]

    async def _get_index(self, request: Request) -> Response:
        index = await self._read(self._source.index, request.query_params.get("filter", ""))
        moments = [round(moment * 1000) for moment in index.started]
        # newest first: each as milliseconds before the one that stands before it, which is short to write
        steps = [earlier - later for earlier, later in zip(moments, moments[1:], strict=False)]
        told: dict[str, object] = {name: getattr(index, name) for name in index.__struct_fields__ if name != "started"}
        return _json(told | {"newest": moments[0] if moments else 0, "steps": steps})

    async def _get_lines(self, request: Request) -> Response:
        try:
            wanted = [int(number) for number in request.query_params.get("ids", "").split(",") if number][:MOST_LINES]
        except ValueError:
            return _error(400, "ids are numbers with commas between them")
        return _json(await self._read(self._source.lines, wanted))

    async def _get_flow(self, request: Request) -> Response:
        return _json(_kept(await self._read(self._source.details, request.path_params["flow"])))

    async def _get_messages(self, request: Request) -> Response:
        after = _number(request, "after", 0)
        found = await self._read(self._source.messages, request.path_params["flow"], after, MOST_MESSAGES)
        return _json(_kept(found))

    async def _get_conversation(self, request: Request) -> Response:
        only_answer = request.query_params.get("part") == "answer"
        return _json(_kept(await self._read(self._answers.conversation, request.path_params["flow"], only_answer)))

    async def _get_curl(self, request: Request) -> Response:
        return _json(_kept(await self._read(self._source.curl, request.path_params["flow"])))

    async def _get_body(self, request: Request) -> Response:
        side: str = request.path_params["side"]
        if side not in ("request", "response"):
            return _error(404, "a flow has a request and a response")
        flow, wanted = request.path_params["flow"], request.query_params.get("as", "text")
        if wanted == "text":
            return _json(_kept(await self._read(self._answers.body_text, flow, side)))
        body = _kept(await self._read(self._source.body, flow, _side(side)))
        media = body.media.partition(";")[0].strip().lower()
        if wanted == "picture" and media in _PICTURES:
            return Response(body.data, media_type=media)
        return Response(body.data, media_type="application/octet-stream")

    async def _get_export(self, request: Request) -> Response:
        # a filter that cannot be read is told before the first byte
        parts = await self._read(self._source.har, request.query_params.get("filter", ""))
        return StreamingResponse(self._parts(parts), media_type="application/octet-stream")

    async def _parts(self, parts: Iterator[bytes]) -> AsyncIterator[bytes]:
        while (part := await self._read(next, parts, None)) is not None:
            yield part

    async def _get_changes(self, request: Request) -> Response:
        since = _number(request, "since", 0)
        text = request.query_params.get("filter", "")
        generation = self._generation
        # an error of the filter is an answer, not the end of a stream
        first = await self._read(self._source.changes, since, text)
        return StreamingResponse(self._changes(generation, first, text), media_type="text/event-stream")

    async def _changes(self, generation: int, changes: Changes, text: str) -> AsyncIterator[bytes]:
        told = b""
        said = time.monotonic()
        while not self._is_ending:
            began = time.monotonic()
            if changes.lines or changes.others or changes.is_partial:
                yield _event("changes", msgspec.json.encode(changes))
                said = began
            overview = await self._current_overview()
            if overview != told:
                yield _event("overview", overview)
                told, said = overview, began
            elif began - said >= SILENT_SECONDS:
                yield b":\n\n"
                said = began
            # a page is told of a commit at once, and of the ones that follow it together
            await self._changed_since(generation, OVERVIEW_SECONDS)
            rest = CHANGE_SECONDS - (time.monotonic() - began)
            if rest > 0:
                await asyncio.sleep(rest)
            generation = self._generation
            changes = await self._read(self._source.changes, changes.revision, text)

    # --- what the watching thread and the end of the server say

    def watch(self) -> None:
        """Begin to watch the source, on the running loop, until `end`."""
        loop = asyncio.get_running_loop()

        def changed() -> None:
            # the loop may have ended in the meantime
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._wake)

        self._unwatch = self._source.watch(changed)

    def end(self) -> None:
        """End all streams of changes."""
        self._unwatch()
        self._is_ending = True
        self._wake()

    def _wake(self) -> None:
        self._generation += 1
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def _changed_since(self, generation: int, seconds: float) -> None:
        if self._generation != generation:
            return
        woken = asyncio.get_running_loop().create_future()
        self._waiting.append(woken)
        await asyncio.wait((woken,), timeout=seconds)


def _side(side: str) -> Side:
    return "request" if side == "request" else "response"


class _NotKept(Exception):
    """A flow that the store does not have."""


def _kept(found: T | None) -> T:
    if found is None:
        raise _NotKept
    return found


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else default


def _event(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _error(status: int, text: str) -> Response:
    return Response(msgspec.json.encode({"error": text}), status, media_type="application/json")


def _filter_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FilterError)
    told = {"error": error.message, "filter": error.text, "at": error.position, "hint": error.hint}
    return Response(msgspec.json.encode(told), 400, media_type="application/json")


def _store_error(request: Request, error: Exception) -> Response:
    return _error(503, str(error))


def _not_kept(request: Request, error: Exception) -> Response:
    return _error(404, "this flow is not kept: the store has made room for newer ones, or it never had it")


async def _file(content: bytes, media_type: str, request: Request) -> Response:
    return Response(content, media_type=media_type)
