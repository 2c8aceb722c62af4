"""What a handler may say about a request: let it go, as it came or changed, answer it, or end it."""

import re
from collections.abc import AsyncIterable, Iterable
from typing import ClassVar, Literal, NamedTuple, NoReturn, final
from urllib.parse import urlsplit

from soth_mitm.addresses import DEFAULT_PORTS, format_authority, normalise_host, parse_authority, parse_target, refuse_zone
from soth_mitm.errors import DecisionError
from soth_mitm.message_parts import (
    DESCRIBES_BODY,
    OURS,
    OURS_IN_HANDSHAKES,
    TOKEN,
    Content,
    Decision,
    HeaderChanges,
    HeaderPairs,
    HeaderText,
    Lines,
    Streamed,
    WantedLines,
    bytes_of,
    changed_lines,
    check_has_body,
    checked,
    content_of,
    final_status,
    merged_lines,
    own_headers,
    shown_body,
    shown_changes,
    streamed,
)

Kind = Literal["allow", "block", "respond", "forward", "abort"]

# What the proxy sets itself of a request that goes on.
_OURS_IN_REQUESTS = OURS | OURS_IN_HANDSHAKES | {b"host", b"expect", b"max-forwards", b"proxy-authorization", b"http2-settings"}
# Origin form (RFC 9112 section 3.2.1), or what OPTIONS asks the whole server for.
_PATH = re.compile(rb"/[\x21\x22\x24-\x7e]*|\*")
# Exceptions that a handler raised in answer to others; one that is nested deeper is not looked for.
_MOST_CAUSES = 64


def meant_to_block(error: BaseException) -> bool:
    """Tell whether a handler failed because a decision was refused, or while it dealt with that."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting and len(seen) < _MOST_CAUSES:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, DecisionError):
            return True
        waiting += (each.__context__, each.__cause__)
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
    return False


class Redirect(NamedTuple):
    """Where a request is sent instead: what `to` of `HandlerDecision.forward` says, in one spelling.

    `is_tls` None: as its own origin. `server_name` None: the name of `authority`, or of its own origin. `authority` None: Host stays.
    """

    host: str
    port: int
    is_tls: bool | None
    server_name: str | None
    authority: str | None


@final
class Upstream:
    """Where `HandlerDecision.forward(to=...)` sends a request, for what a string cannot say.

    `host` is the name or address to connect to, at `port`, and `tls` whether TLS is spoken there. `server_name` is what TLS asks for and
    the certificate is checked for; None: the name of `authority`, or that of the request's own origin. `authority`, a host with an
    optional port, is what Host and `:authority` say; None: they stay.

    Immutable and hashable; two that say the same are equal. `DecisionValueError` and `DecisionTypeError` say what is wrong.
    """

    __slots__ = ("_where",)

    _where: Redirect

    def __init__(self, host: str, port: int, *, tls: bool = True, server_name: str | None = None, authority: str | None = None) -> None:
        object.__setattr__(self, "_where", _upstream(host, port, tls, server_name, authority))

    @property
    def host(self) -> str:
        """The name or address to connect to, in the spelling that patterns are compared with."""
        return self._where.host

    @property
    def port(self) -> int:
        """Its port."""
        return self._where.port

    @property
    def tls(self) -> bool:
        """Whether TLS is spoken there."""
        return bool(self._where.is_tls)

    @property
    def server_name(self) -> str | None:
        """What TLS asks for, or None."""
        return self._where.server_name

    @property
    def authority(self) -> str | None:
        """What Host says, or None."""
        return self._where.authority

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"an Upstream cannot be changed; make another one (tried to set {name!r})")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"an Upstream cannot be changed (tried to delete {name!r})")

    def __eq__(self, other: object) -> bool:
        return self._where == other._where if isinstance(other, Upstream) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._where)

    def __reduce__(self) -> tuple[object, ...]:
        return _upstream_again, tuple(self._where)

    def __repr__(self) -> str:
        host, port, tls, server_name, authority = self._where
        rest = "" if tls else ", tls=False"
        rest += "" if server_name is None else f", server_name={server_name!r}"
        rest += "" if authority is None else f", authority={authority!r}"
        return f"Upstream({host!r}, {port}{rest})"


def _upstream_again(host: str, port: int, tls: bool, server_name: str | None, authority: str | None) -> Upstream:
    return Upstream(host, port, tls=tls, server_name=server_name, authority=authority)


@checked
def _upstream(host: str, port: int, tls: bool, server_name: str | None, authority: str | None) -> Redirect:
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"to: expected a whole number as port, got {port!r}")
    if not 1 <= port <= 65535:
        raise ValueError(f"to: the port is not within 1..65535: {port}")
    if not isinstance(tls, bool):
        raise TypeError(f"to: expected True or False as tls, got {tls!r}")
    if server_name is not None and not tls:
        raise ValueError("to: a server_name is for TLS; leave it out, or let tls be True")
    name = None if server_name is None else _host_of(server_name)
    scheme = "https" if tls else "http"
    return Redirect(_host_of(host), port, tls, name, None if authority is None else _authority_of(authority, scheme))


def _host_of(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"to: expected str as a host, got {type(text).__name__}")
    try:
        return normalise_host(text)
    except ValueError as error:
        raise ValueError(f"to: `{text}` {error}") from None


def _authority_of(text: str, scheme: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"to: expected str as authority, got {type(text).__name__}")
    try:
        host, port = parse_authority(text, DEFAULT_PORTS[scheme])
        refuse_zone(host, port)
    except ValueError as error:
        raise ValueError(f"to: `{text}` {error}") from None
    return format_authority(host, port, scheme)


def _redirect(to: "str | Upstream") -> Redirect:
    if isinstance(to, Upstream):
        return to._where
    if not isinstance(to, str):
        raise TypeError(f"to: expected str or Upstream, got {type(to).__name__}")
    scheme, mark, _ = to.partition("://")
    if not mark:
        try:
            host, port = parse_target(to)
        except ValueError as error:
            raise ValueError(f"to: `{to}` {error}") from None
        return Redirect(host, port, None, None, None)
    if scheme.lower() not in DEFAULT_PORTS:
        raise ValueError(f"to: `{to}` is neither host:port nor an http:// or https:// URL")
    if any(character <= " " or character == "\x7f" for character in to):
        # some of which urlsplit leaves out
        raise ValueError(f"to: {to!r} holds white space or a control character")
    parts = urlsplit(to)
    if parts.path not in ("", "/") or parts.query or parts.fragment or to.endswith(("?", "#")):
        raise ValueError(f"to: `{to}` names more than an origin; `path` says the rest")
    authority = _authority_of(parts.netloc, parts.scheme)
    host, port = parse_authority(authority, DEFAULT_PORTS[parts.scheme])
    return Redirect(host, port, parts.scheme == "https", None, authority)


@final
class HandlerDecision(Decision):
    """The answer of `on_request`. Immutable; made by `ALLOW`, `block`, `respond`, `forward` and `abort`, never by calling the class.

    `kind` is the name of what made it, in lower case. `status`, `body` and `headers` are those of the answer of a `block` or a
    `respond`, else 0, empty and empty. `set`, `add`, `remove`, `method`, `path`, `body` and `to` are those of a `forward`: empty, or
    None, where it changes nothing. `how` is that of an `abort`, else empty. Two that do the same are equal.

    One whose body is an async iterable serves one message, and can be neither hashed nor pickled.
    """

    __slots__ = ("_where", "add", "body", "headers", "how", "kind", "method", "path", "remove", "set", "status", "to")

    kind: Kind
    status: int
    body: bytes | AsyncIterable[bytes] | None
    headers: Lines
    set: WantedLines
    add: Lines
    remove: tuple[bytes, ...]
    method: bytes | None
    path: bytes | None
    to: str | Upstream | None
    _where: Redirect | None
    how: Literal["close", "reset", ""]

    _NOTHING = {
        "status": 0,
        "body": b"",
        "headers": (),
        "set": (),
        "add": (),
        "remove": (),
        "method": None,
        "path": None,
        "to": None,
        "_where": None,
        "how": "",
    }

    ALLOW: ClassVar["HandlerDecision"]
    Allow: ClassVar["HandlerDecision"]

    def __init__(self) -> None:
        raise TypeError(
            "use HandlerDecision.ALLOW, .block(status, body, headers), .respond(status, body, headers), .forward(set=...) or .abort(how)"
        )

    @staticmethod
    @checked
    def block(status: int, body: Content = b"", headers: HeaderPairs = ()) -> "HandlerDecision":
        """Answer the request with `status` and `body` instead of forwarding it. Counted as blocked.

        `status` is a final one, 200 to 599. A body given as text is sent as UTF-8, and refused where Content-Type says another charset.
        Headers are sent in order; those that frame the answer or belong to the connection are the proxy's and refused.
        `DecisionValueError` and `DecisionTypeError` (a `ValueError` and a `TypeError`) say what is wrong, where the mistake is made; raised
        out of `on_request` they block the request with a 502.
        """
        return _answer("block", status, body, headers)

    Block = block

    @staticmethod
    @checked
    def respond(status: int = 200, body: Streamed = b"", headers: HeaderPairs = ()) -> "HandlerDecision":
        """Answer the request with `status` and `body` instead of forwarding it. Counted as answered, and nothing is dialled.

        The arguments, and what is refused, are those of `block`. An async iterable of bytes is sent as it comes, no faster than the client
        reads, by a task of its own with the context variables of here. The next item is asked for when the client has taken the one before,
        and has `timeouts.body_idle_ms` to come. `aclose()` is awaited when the client leaves, for `handler.response_timeout_ms` at most. A
        failure before the first item is answered 502, one behind it cuts the response. For a HEAD nothing is asked for.
        """
        return _answer("respond", status, body, headers)

    @staticmethod
    @checked
    def forward(
        *,
        set: HeaderChanges = (),
        add: HeaderChanges = (),
        remove: Iterable[HeaderText] = (),
        method: str | None = None,
        path: str | None = None,
        body: Streamed | None = None,
        to: str | Upstream | None = None,
    ) -> "HandlerDecision":
        """Forward a changed request.

        `set` replaces every header of a name where the first one stands, else it appends; several values make several lines. `add` appends,
        `remove` takes away. Names are compared without regard to case, and a header that is set keeps the spelling of the message. What is
        not named keeps its bytes. Framing, connection, Host, Expect and Sec-WebSocket headers are refused, but Sec-WebSocket-Protocol may
        be changed; so are more than 64 lines.

        `path` is in origin form, query included. `method` may not become or stop being HEAD, or be CONNECT. `body` needs a request that was
        shown whole (`request.body_problem` is None). It is sent as it is given, so Content-Encoding, digests, Trailer and Expect leave the
        request; a Content-Encoding in `set` describes it. Text is sent as UTF-8. An async iterable is sent as it comes, as by `respond`, no
        faster than the upstream reads; such a request is never sent again. If it fails, the upstream gets no whole request, and the client
        a 502.

        `to="host:port"` dials another address for the same origin: name, certificate check and Host stay. `to="https://host"` is another
        origin: name, check and Host are its own; Origin and cookies stay. `Upstream` says what a string cannot. The policy judges the
        address and each name that is used there, and the address guard each address; what they refuse is answered 403. `request.authority`
        stays what the client asked for, and the next request goes its own way.

        What is wrong whatever the request is raised here, as by `block`. What is wrong with this request (a head that would be longer than
        `max_http_head_bytes`, a body for a request that was not shown whole) is a failure of `on_request`, and answered 502.
        """
        return _forward(set, add, remove, method, path, body, to)

    @staticmethod
    @checked
    def abort(how: Literal["close", "reset"] = "reset") -> "HandlerDecision":
        """End the request without an answer, and nothing is dialled. Counted as aborted.

        On HTTP/1 the client's connection ends, after the responses to earlier requests: `"close"` with a FIN, `"reset"` with a RST. On
        HTTP/2 its stream is reset with CANCEL for `"close"`, with INTERNAL_ERROR for `"reset"`, and the connection goes on.
        """
        if how not in ("close", "reset"):
            raise ValueError(f"how: expected 'close' or 'reset', got {how!r}")
        return HandlerDecision._make("abort", how=how)

    @property
    def is_block(self) -> bool:
        """Whether the decision is a block."""
        return self.kind == "block"

    def __reduce__(self) -> str | tuple[object, ...]:
        self._refuse_copies()
        if self.kind == "block":
            return HandlerDecision.block, (self.status, self.body, self.headers)
        if self.kind == "respond":
            return HandlerDecision.respond, (self.status, self.body, self.headers)
        if self.kind == "abort":
            return HandlerDecision.abort, (self.how,)
        if self.kind == "forward":
            return _forward, (self.set, self.add, self.remove, self.method, self.path, self.body, self.to)
        return "HandlerDecision.ALLOW"

    def __repr__(self) -> str:
        if self.kind == "allow":
            return "HandlerDecision.ALLOW"
        if self.kind == "abort":
            return f"HandlerDecision.abort({self.how!r})"
        if self.kind == "forward":
            names = shown_changes(self)
            names += [f"{what}={each!r}" for what, each in (("method", self.method), ("path", self.path)) if each is not None]
            names += [] if self.body is None else [f"body={shown_body(self.body)}"]
            names += [] if self.to is None else [f"to={self.to!r}"]
            return f"HandlerDecision.forward({', '.join(names)})"
        headers = f", headers={list(self.headers)!r}" if self.headers else ""
        return f"HandlerDecision.{self.kind}({self.status}, {shown_body(self.body)}{headers})"


def _forward(
    set: HeaderChanges,
    add: HeaderChanges,
    remove: Iterable[HeaderText],
    method: str | bytes | None,
    path: str | bytes | None,
    body: Streamed | None,
    to: str | Upstream | None,
) -> HandlerDecision:
    wanted, added, removed = changed_lines(set, add, remove, _OURS_IN_REQUESTS, body)
    return HandlerDecision._make(
        "forward",
        set=wanted,
        add=added,
        remove=removed,
        method=None if method is None else _method(method),
        path=None if path is None else _path(path),
        body=None if body is None else streamed(body),
        to=to,
        _where=None if to is None else _redirect(to),
    )


def merged(first: HandlerDecision, later: HandlerDecision) -> HandlerDecision:
    """Return the `forward` that does what `first` does and then `later`, which was decided on what `first` made of the request.

    A body that is an async iterable is taken from here or from the decision that gave it, once.
    """
    has_new_body = later.body is not None
    wanted, added, removed = merged_lines(first, later, DESCRIBES_BODY if has_new_body else ())
    where = later._where
    to: str | Upstream | None = later.to if where is not None else first.to
    if where is None:
        where = first._where
    elif first._where is not None and where.authority is None:
        # another address for the origin that the first one named
        before = first._where
        where = Redirect(
            where.host,
            where.port,
            before.is_tls if where.is_tls is None else where.is_tls,
            where.server_name or before.server_name,
            before.authority,
        )
        to = None
        if where.is_tls is not None:
            to = Upstream(where.host, where.port, tls=where.is_tls, server_name=where.server_name, authority=where.authority)
    decision = HandlerDecision._make(
        "forward",
        set=wanted,
        add=added,
        remove=removed,
        method=later.method or first.method,
        path=later.path or first.path,
        body=later.body if has_new_body else first.body,
        to=to,
        _where=where,
    )
    object.__setattr__(decision, "_untaken", later._untaken if has_new_body else first._untaken)
    return decision


def _method(method: str | bytes) -> bytes:
    raw = bytes_of(method, "method", "method")
    if not TOKEN.fullmatch(raw):
        raise ValueError(f"method: {method!r} is no method")
    if raw == b"CONNECT":
        raise ValueError("method: a request cannot become a CONNECT")
    return raw


def _path(path: str | bytes) -> bytes:
    raw = bytes_of(path, "path", "path")
    if not _PATH.fullmatch(raw):
        raise ValueError(f"path: expected the origin form, such as '/v1/items?limit=3', got {path!r}")
    return raw


def _answer(kind: Kind, status: int, body: Streamed, headers: HeaderPairs) -> HandlerDecision:
    final_status(status)
    content = streamed(body) if kind == "respond" else content_of(body)  # type: ignore[arg-type]
    check_has_body(status, content)
    return HandlerDecision._make(kind, status=status, body=content, headers=own_headers(headers, body))


HandlerDecision.ALLOW = HandlerDecision.Allow = HandlerDecision._make("allow")
