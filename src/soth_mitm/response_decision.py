"""What a handler may say about a response: let it pass, as it came or changed, hold it for its body, replace its body, or block it."""

from collections.abc import AsyncIterable, Iterable
from typing import ClassVar, Literal, final

from soth_mitm.message_parts import (
    BODILESS,
    OURS,
    OURS_IN_HANDSHAKES,
    Content,
    Decision,
    HeaderChanges,
    HeaderPairs,
    HeaderText,
    Lines,
    Streamed,
    WantedLines,
    changed_headers,
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

Kind = Literal["pass", "hold", "unfiltered", "change", "replace", "block"]

_OURS_IN_RESPONSES = OURS | OURS_IN_HANDSHAKES
# What describes the old body, or would bring it back; http/changes takes these out of a response.
_DESCRIBES_OLD_BODY: tuple[bytes, ...] = (
    b"content-encoding",
    b"content-md5",
    b"digest",
    b"content-digest",
    b"repr-digest",
    b"trailer",
    b"etag",
    b"last-modified",
    b"accept-ranges",
)


@final
class ResponseDecision(Decision):
    """The answer of `on_response_head` and `on_response_body`.

    Immutable; made by `PASS`, `HOLD`, `UNFILTERED`, `change`, `replace` and `block`, never by calling the class.

    `kind` is the name of what made it, in lower case. `status` is that of a `change`, `replace` or `block`, None where it stays.
    `set`, `add` and `remove` are the changes of a `change` or `replace` to the upstream's head. `body` is that of a `replace` or `block`,
    else None. `headers` are those of a `block`, or the ones that a `replace` gives in place of the upstream's; else None. Two that do the
    same are equal.

    One whose body is an async iterable serves one response, and can be neither hashed nor pickled.
    """

    __slots__ = ("_is_unfiltered", "_note", "add", "body", "headers", "kind", "remove", "set", "status")

    kind: Kind
    status: int | None
    body: bytes | AsyncIterable[bytes] | None
    headers: Lines | None
    set: WantedLines
    add: Lines
    remove: tuple[bytes, ...]
    # not only UNFILTERED leaves the flow unfiltered
    _is_unfiltered: bool
    # for who is asked next about this flow; pairs of whose it is and what it says
    _note: tuple[tuple[object, object], ...]

    _NOTHING = {
        "status": None,
        "body": None,
        "headers": None,
        "set": (),
        "add": (),
        "remove": (),
        "_is_unfiltered": False,
        "_note": (),
    }

    PASS: ClassVar["ResponseDecision"]
    """Relay the response as it came."""
    HOLD: ClassVar["ResponseDecision"]
    """Collect the body first, then ask `on_response_body`. Nothing is relayed meanwhile. Not for streams and 101."""
    UNFILTERED: ClassVar["ResponseDecision"]
    """Relay the response as it came, and do not ask `filter_stream_chunk` about this flow."""

    def __init__(self) -> None:
        raise TypeError(
            "use ResponseDecision.PASS, .HOLD, .UNFILTERED, .change(set=...), .replace(status, body, headers) or .block(status, body)"
        )

    @staticmethod
    @checked
    def change(
        *, set: HeaderChanges = (), add: HeaderChanges = (), remove: Iterable[HeaderText] = (), status: int | None = None
    ) -> "ResponseDecision":
        """Relay the response with another head; its body goes on as it is.

        `set` replaces every header of a name where the first one stands, else it appends; several values make several lines. `add` appends,
        `remove` takes away. Names are compared without regard to case, and a header that is set keeps the spelling of the message. What is
        not named keeps its bytes. Framing and connection headers and those of the handshake of a WebSocket are refused, but
        Sec-WebSocket-Protocol may be changed; so are more than 64 lines.

        `status` is a final one, 200 to 599, and none of a response without a body (204, 205, 304). For a response that has no body for its
        status, and for a 101, another `status` cannot be applied.

        What is wrong whatever the response is raised here, as by `block`. What is wrong with this response (a head that would be longer
        than `max_http_head_bytes`) is a failure of the hook, and the client gets a 502.
        """
        return _change(set, add, remove, status)

    @staticmethod
    @checked
    def replace(
        status: int | None = None,
        body: Streamed = b"",
        headers: HeaderPairs | None = None,
        *,
        set: HeaderChanges = (),
        remove: Iterable[HeaderText] = (),
    ) -> "ResponseDecision":
        """Send another body. What the upstream sends of its own is discarded.

        With `headers=None` the upstream's head is kept, with the changes of `set` and `remove`, and without what describes the old body:
        Content-Encoding, digests, ETag, Last-Modified, Accept-Ranges, Trailer. A Content-Encoding in `set` describes the new body.
        `headers` make a new head. `status=None` keeps the status. Trailers are dropped.

        The body is sent as it is given. Text is sent as UTF-8, and refused where Content-Type says another charset. An async iterable is
        sent as it comes, no faster than the client reads, as by `HandlerDecision.respond`. To a HEAD only the head is sent.

        In `on_response_body` the response has to be shown whole (`response.body_complete`). A body for a status without one, and a body of
        another length for a 206, cannot be applied. Such a decision is a failure of the hook, and the client gets a 502.
        """
        return _replace(status, body, headers, set, remove)

    @staticmethod
    @checked
    def block(status: int = 502, body: Content = b"", headers: HeaderPairs = ()) -> "ResponseDecision":
        """Send this response instead. Counted as blocked.

        `status` is a final one, 200 to 599. A body given as text is sent as UTF-8, and refused where Content-Type says another charset.
        Headers are sent in order; those that frame the response or belong to the connection are the proxy's and refused.
        `DecisionValueError` and `DecisionTypeError` (a `ValueError` and a `TypeError`) say what is wrong, where the mistake is made; raised
        out of a hook they block the response with a 502.
        """
        final_status(status)
        content = content_of(body)
        check_has_body(status, content)
        return ResponseDecision._make("block", status=status, body=content, headers=own_headers(headers, body))

    @property
    def is_block(self) -> bool:
        """Whether the decision is a block."""
        return self.kind == "block"

    def __reduce__(self) -> str | tuple[object, ...]:
        self._refuse_copies()
        if self.kind == "block":
            return ResponseDecision.block, (self.status, self.body, self.headers)
        if self.kind in ("change", "replace"):
            return _made_again, (self.kind, {name: getattr(self, name) for name in self._NOTHING if name != "_note"})
        return f"ResponseDecision.{self.kind.upper()}"

    def __repr__(self) -> str:
        if self.kind == "block":
            headers = f", headers={list(self.headers)!r}" if self.headers else ""
            return f"ResponseDecision.block({self.status}, {shown_body(self.body)}{headers})"
        if self.kind not in ("change", "replace"):
            return f"ResponseDecision.{self.kind.upper()}"
        parts = shown_changes(self)
        parts += [] if self.status is None else [f"status={self.status}"]
        parts += [] if self.body is None else [f"body={shown_body(self.body)}"]
        parts += [] if self.headers is None else [f"headers={list(self.headers)!r}"]
        return f"ResponseDecision.{self.kind}({', '.join(parts)})"


def _change(set: HeaderChanges, add: HeaderChanges, remove: Iterable[HeaderText], status: int | None) -> ResponseDecision:
    if status is not None and final_status(status) in BODILESS:
        raise ValueError(f"status: a response with status {status} has no body, and `change` keeps that of the upstream; use replace()")
    wanted, added, removed = changed_lines(set, add, remove, _OURS_IN_RESPONSES)
    return ResponseDecision._make("change", set=wanted, add=added, remove=removed, status=status)


def _replace(
    status: int | None, body: Streamed, headers: HeaderPairs | None, set: HeaderChanges, remove: Iterable[HeaderText]
) -> ResponseDecision:
    content = streamed(body)
    if status is not None:
        check_has_body(final_status(status), content)
    wanted, _, removed = changed_lines(set, (), remove, _OURS_IN_RESPONSES, body)
    if headers is None:
        return ResponseDecision._make("replace", status=status, body=content, set=wanted, remove=removed)
    if wanted or removed:
        raise ValueError("headers: these make a new head, which `set` and `remove` cannot change")
    return ResponseDecision._make("replace", status=status, body=content, headers=own_headers(headers, body))


def _made_again(kind: Kind, parts: dict[str, object]) -> ResponseDecision:
    return ResponseDecision._make(kind, **parts)


def merged(first: ResponseDecision, later: ResponseDecision) -> ResponseDecision:
    """Return the `change` or `replace` that does what `first` does and then `later`, which was decided on what `first` made of a response.

    A body that is an async iterable is taken from here or from the decision that gave it, once.
    """
    has_new_body = later.body is not None
    status = first.status if later.status is None else later.status
    described = _DESCRIBES_OLD_BODY if has_new_body else ()
    if has_new_body and status != 206:
        described += (b"content-range",)
    source = later if has_new_body else first
    parts: dict[str, object] = {"status": status, "body": source.body}
    if later.headers is not None:
        parts |= {"headers": later.headers, "remove": later.remove}
    elif first.headers is not None:
        gone = tuple(dict.fromkeys((*first.remove, *later.remove)))
        parts |= {"headers": changed_headers(first.headers, later, described), "remove": gone}
    else:
        parts["set"], parts["add"], parts["remove"] = merged_lines(first, later, described)
    decision = ResponseDecision._make("change" if source.body is None else "replace", **parts)
    object.__setattr__(decision, "_untaken", source._untaken)
    return decision


def held(note: tuple[tuple[object, object], ...]) -> ResponseDecision:
    """Return a HOLD that leaves a note."""
    return ResponseDecision._make("hold", _note=note)


def noted(decision: ResponseDecision, is_unfiltered: bool, note: tuple[tuple[object, object], ...]) -> ResponseDecision:
    """Return what does as `decision`, and leaves the flow unfiltered, or a note for `filter_stream_chunk`."""
    if not is_unfiltered and not note:
        return decision
    if decision.kind == "pass" and is_unfiltered:
        return ResponseDecision.UNFILTERED
    parts = {name: getattr(decision, name) for name in decision._NOTHING}
    made = ResponseDecision._make(decision.kind, **{**parts, "_is_unfiltered": is_unfiltered, "_note": note})
    object.__setattr__(made, "_untaken", decision._untaken)
    return made


ResponseDecision.PASS = ResponseDecision._make("pass")
ResponseDecision.HOLD = ResponseDecision._make("hold")
ResponseDecision.UNFILTERED = ResponseDecision._make("unfiltered")
