"""Answer requests from files."""

import asyncio
import mimetypes
import os
import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest
from soth_mitm.rules.matching import Url

AT_ONCE = 1024 * 1024
"""Bytes that are read in one go; a longer file is sent as it is read."""
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_NOT_FOUND = HandlerDecision.respond(404, "there is no such file")
_OTHER_METHOD = HandlerDecision.respond(405, "files are only read", {"Allow": "GET, HEAD"})


class MapLocal(InterceptHandler):
    """Answers the requests for a URL from files."""

    def __init__(self, url: str, place: str | os.PathLike[str], content_type: str | None) -> None:
        self._url = Url.parse(url)
        self._place = Path(place).resolve(strict=True)
        self._is_directory = self._place.is_dir()
        self._content_type = content_type
        if self._is_directory and not self._url.path.groups:
            raise ValueError(f"url: `{url}` has no `*` for the names of the files in the directory {place}")
        # as for every header: what is wrong is said now
        HandlerDecision.respond(200, b"", self._headers(self._place))

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        """Answer the request if it is for the URL."""
        stands_for = self._url.match(request)
        if stands_for is None:
            return HandlerDecision.ALLOW
        if request.method not in ("GET", "HEAD"):
            return _OTHER_METHOD
        return await asyncio.to_thread(self._answer, stands_for[-1] if self._is_directory else "", request)

    def _answer(self, name: str, request: RawRequest) -> HandlerDecision:
        try:
            path, descriptor = self._open(name)
        except (OSError, ValueError):
            return _NOT_FOUND
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            headers = self._headers(path)
            begin, end = 0, size
            status = 200
            # of several ranges, and of one that depends on what the client has, the whole is an answer as well
            asked = _RANGE.fullmatch(request.headers.get("range") or "")
            if asked is not None and asked[0] != "bytes=-" and "if-range" not in request.headers:
                begin, end = _part(asked[1], asked[2], size)
                if begin >= end:
                    return HandlerDecision.respond(416, b"", {"Content-Range": f"bytes */{size}"})
                status, headers = 206, {**headers, "Content-Range": f"bytes {begin}-{end - 1}/{size}"}
            if end - begin > AT_ONCE and request.method == "GET":
                return HandlerDecision.respond(status, _read(os.dup(descriptor), begin, end), headers)
            file.seek(begin)
            return HandlerDecision.respond(status, file.read(end - begin), headers)

    def _headers(self, path: Path) -> dict[str, str]:
        guessed = self._content_type or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return {"Content-Type": guessed, "Accept-Ranges": "bytes"}

    def _open(self, name: str) -> tuple[Path, int]:
        """Open the file that `name`, a part of a path, means inside the directory. `OSError` or `ValueError` if there is none there."""
        if not self._is_directory:
            return self._place, _open_file(self._place.parent, (self._place.name,))
        text = os.fsdecode(unquote_to_bytes(name))
        parts = [part for part in text.split("/") if part not in ("", ".")]
        if ".." in parts or any("\0" in part or (os.sep != "/" and (os.sep in part or ":" in part)) for part in parts):
            raise ValueError(name)
        path = self._place.joinpath(*parts).resolve(strict=True)
        if path.is_dir():
            path = (path / "index.html").resolve(strict=True)
        # a link may lead elsewhere in the directory, and nowhere else
        inside = path.relative_to(self._place)
        return path, _open_file(self._place, inside.parts)


def _open_file(directory: Path, parts: tuple[str, ...]) -> int:
    """Open a regular file below a directory without following a link that was put there meanwhile."""
    no_link = getattr(os, "O_NOFOLLOW", 0)
    if os.open not in os.supports_dir_fd:
        descriptor = os.open(directory.joinpath(*parts), os.O_RDONLY | no_link | getattr(os, "O_BINARY", 0))
    else:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        for number, part in enumerate(parts):
            kind = os.O_DIRECTORY if number < len(parts) - 1 else os.O_NONBLOCK
            above = descriptor
            try:
                descriptor = os.open(part, os.O_RDONLY | no_link | kind, dir_fd=above)
            finally:
                os.close(above)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("not a regular file")
    return descriptor


def _part(first: str, last: str, size: int) -> tuple[int, int]:
    """Return where a range begins and ends (RFC 9110 section 14.1.2); an empty one cannot be satisfied."""
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


async def _read(descriptor: int, begin: int, end: int) -> AsyncIterator[bytes]:
    with os.fdopen(descriptor, "rb") as file:
        file.seek(begin)
        while begin < end and (piece := await asyncio.to_thread(file.read, min(AT_ONCE, end - begin))):
            begin += len(piece)
            yield piece


def map_local(url: str, file_or_directory: str | os.PathLike[str], *, content_type: str | None = None) -> InterceptHandler:
    """Answer GET and HEAD for `url` from a file, or from the files of a directory; the last `*` of the url stands for the name.

    Nothing outside the directory is read, by links or by `..`. Range is answered. Without `content_type` the name of a file tells it.
    Other methods are answered 405, what does not exist 404. `OSError` if there is no such file or directory.

    >>> import tempfile
    >>> from soth_mitm import rules
    >>> handler = rules.map_local("https://cdn.example.com/assets/*", tempfile.gettempdir())
    """
    return MapLocal(url, file_or_directory, content_type)
