"""HTTP Archive 1.2: `har_document` writes flows as a HAR file, one by one, and `har_entry` makes one entry.

Entries stand in the order in which the flows are given, which should be that of their start. What the format has no place for is in the
field `_sothmitm` of an entry. Of WebSockets, errors and binary uploads the fields are those that browsers and other proxies use.
"""

import base64
import codecs
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from soth_mitm.addresses import format_host_port
from soth_mitm.observe.flow_record import Fields, FlowKind, FlowMessage, Timings

Json = dict[str, Any]

END = b"\n]}}\n"
"""What stands behind the last entry."""
_CHARSET = re.compile(r"""charset\s*=\s*["']?([\w.:-]+)""", re.IGNORECASE)
_PORTS = {"https": 443, "http": 80}
_SOCKETS = {"https": "wss", "http": "ws"}
_WITHOUT_BODY = ("GET", "HEAD", "CONNECT")

_encode = msgspec.json.Encoder().encode


class HarContent(msgspec.Struct, frozen=True):
    """The content of one side, its content codings removed, and masked."""

    chunks: tuple[tuple[float, bytes], ...] = ()
    """Seconds since the flow's start, and octets."""
    size: int | None = None
    """Bytes of all of it without its coding; None: it is not known, as the coding could not be removed, or not from all of it."""
    is_cut: bool = False
    """Whether more of it came than is here."""
    problem: str = ""
    """Why nothing of it is here; `""`: it is."""
    is_masked: bool = False

    @property
    def data(self) -> bytes:
        """The octets that are here."""
        return b"".join(data for _, data in self.chunks)


class HarFlow(msgspec.Struct, frozen=True, kw_only=True):
    """All that an entry is made of. Heads, paths and contents are masked already, and `masked` says where something was."""

    flow_id: int
    kind: FlowKind
    started: float
    """Seconds since 1970."""
    took: float | None
    timings: Timings
    scheme: str
    host: str
    port: int
    method: str
    path: str
    status: int
    http_version: str
    upstream_http_version: str = ""
    request_fields: Fields = ()
    response_fields: Fields = ()
    request_head_size: int | None = None
    """Bytes of the fields as they were received, with the ends of their lines; None: as they are here."""
    response_head_size: int | None = None
    request_size: int = 0
    """Bytes of the content as sent."""
    response_size: int = 0
    request: HarContent = HarContent()
    response: HarContent = HarContent()
    messages: tuple[FlowMessage, ...] = ()
    missed: int = 0
    """Messages that are not here."""
    websocket_close: tuple[int, str] | None = None
    upstream_address: tuple[str, int] | None = None
    upstream_connection_id: int | None = None
    outcome: str = ""
    cause: str = ""
    decision: str = ""
    protocol: str = ""
    pattern: str = ""
    grpc_status: str | None = None
    program: str | None = None
    """Name of the client's program."""
    pid: int | None = None
    call: Json | None = None
    """`ModelCall.as_dict()`, if it is a call of a model."""
    masked: tuple[str, ...] = ()


def har_start(version: str, comment: str = "") -> bytes:
    """Return what stands before the first entry; `version` is that of this package."""
    log: Json = {"version": "1.2", "creator": {"name": "soth-mitm", "version": version}, "pages": []}
    if comment:
        log["comment"] = comment
    return b'{"log":' + _encode(log)[:-1] + b',"entries":['


def har_document(flows: Iterable[HarFlow], version: str, comment: str = "") -> Iterator[bytes]:
    """Yield a whole HAR file, an entry at a time."""
    yield har_start(version, comment)
    separator = b"\n"
    for flow in flows:
        yield separator + encoded_entry(flow)
        separator = b",\n"
    yield END


def encoded_entry(flow: HarFlow) -> bytes:
    """Return an entry as JSON in one line."""
    entry = har_entry(flow)
    try:
        return _encode(entry)
    except UnicodeEncodeError:
        # halves of surrogate pairs
        return _encode(_encodable(entry))


def is_exchange(flow: HarFlow) -> bool:
    """Tell whether a flow is a request, and no tunnel and no refusal, which are in a HAR file only where they are asked for."""
    return flow.kind in (FlowKind.HTTP, FlowKind.WEBSOCKET)


def har_entry(flow: HarFlow) -> Json:
    """Return the entry of a flow, as an object of JSON."""
    timings = _timings(flow)
    entry: Json = {
        "startedDateTime": _moment(flow.started),
        "time": round(sum(each for name, each in timings.items() if each > 0 and name != "ssl"), 3),
        "request": _request(flow),
        "response": _response(flow),
        "cache": {},
        "timings": timings,
    }
    if flow.upstream_address is not None:
        entry["serverIPAddress"] = flow.upstream_address[0]
    if flow.upstream_connection_id is not None:
        entry["connection"] = str(flow.upstream_connection_id)
    if flow.kind is FlowKind.WEBSOCKET:
        entry["_resourceType"] = "websocket"
        entry["_webSocketMessages"] = [_message(flow.started, each) for each in flow.messages if each.opcode in (1, 2)]
        if flow.websocket_close is not None and flow.websocket_close[0]:
            entry["_webSocketClose"] = {"code": flow.websocket_close[0], "by": flow.websocket_close[1]}
    entry["_sothmitm"] = _own(flow)
    return entry


def _moment(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return "1970-01-01T00:00:00.000000Z"


def _timings(flow: HarFlow) -> dict[str, float]:
    """Return the times of the steps in milliseconds; -1: there was no such step."""
    at = flow.timings
    ended = max(at.ended or 0.0, flow.took or 0.0, 0.0)
    acquired = at.acquired if at.acquired is not None else at.decided or 0.0
    acquired = min(max(acquired, 0.0), ended)
    connect = None if at.dialled is None else min(max(at.dialled, 0.0), acquired)
    first = ended if at.first_byte is None else min(max(at.first_byte, acquired), ended)
    # an answer may begin before the request has ended
    sent = acquired if at.sent is None else min(max(at.sent, acquired), first)
    found = {
        "blocked": acquired - (connect or 0.0),
        "dns": None,
        "connect": connect,
        "send": sent - acquired,
        "wait": first - sent,
        "receive": ended - first,
        "ssl": None if connect is None or at.tls is None else min(max(at.tls, 0.0), connect),
    }
    return {name: -1 if each is None else round(each * 1000, 3) for name, each in found.items()}


def _version(version: str) -> str:
    # as browsers write it, and what readers know
    return "http/2.0" if version.startswith("HTTP/2") else version or "unknown"


def _request(flow: HarFlow) -> Json:
    url = har_url(flow)
    head = None
    if flow.http_version.startswith("HTTP/1"):
        fields = size_of(flow.request_fields) if flow.request_head_size is None else flow.request_head_size
        head = len(f"{flow.method} {flow.path} HTTP/1.1\r\n".encode("utf-8", "replace")) + fields + 2
    request: Json = {
        "method": flow.method or "CONNECT",
        "url": url,
        "httpVersion": _version(flow.http_version),
        "cookies": _cookies(flow.request_fields),
        "headers": _headers(flow.request_fields),
        "queryString": _pairs(flow.path.partition("?")[2]),
        "headersSize": -1 if head is None else head,
        "bodySize": flow.request_size,
    }
    if flow.kind is FlowKind.HTTP and (flow.request_size or (flow.method not in _WITHOUT_BODY and flow.request.chunks)):
        media = _value(flow.request_fields, b"content-type")
        data = flow.request.data
        text = text_of(data, media, flow.request.is_cut)
        # readers take the text as it is: what is binary stands beside it
        request["postData"] = {"mimeType": media, "params": [], "text": text or ""}
        if text is None:
            request["_content"] = {"size": len(data), "encoding": "base64", "text": base64.b64encode(data).decode()}
        comment = _comment(flow.request)
        if comment:
            request["postData"]["comment"] = comment
    return request


def _response(flow: HarFlow) -> Json:
    try:
        phrase = HTTPStatus(flow.status).phrase
    except ValueError:
        phrase = ""
    is_http1 = flow.http_version.startswith("HTTP/1")
    head = -1
    if is_http1 and flow.status:
        fields = size_of(flow.response_fields) if flow.response_head_size is None else flow.response_head_size
        head = len(f"HTTP/1.1 {flow.status} {phrase}\r\n") + fields + 2
    response: Json = {
        "status": flow.status,
        "statusText": phrase if is_http1 else "",
        "httpVersion": _version(flow.http_version),
        "cookies": _set_cookies(flow.response_fields),
        "headers": _headers(flow.response_fields),
        "content": _content(flow),
        "redirectURL": _value(flow.response_fields, b"location"),
        "headersSize": head,
        "bodySize": flow.response_size if flow.status else -1,
    }
    if not flow.status or flow.outcome not in ("answered", "responded", "blocked", "tunnelled", ""):
        response["_error"] = flow.cause or flow.outcome or "no answer"
    return response


def _content(flow: HarFlow) -> Json:
    media = _value(flow.response_fields, b"content-type")
    body = flow.response
    size = body.size
    content: Json = {"size": flow.response_size if size is None else size}
    if size is not None and size != flow.response_size:
        content["compression"] = size - flow.response_size
    content["mimeType"] = media or "x-unknown"
    data = body.data
    if data:
        text = text_of(data, media, body.is_cut)
        if text is None:
            content |= {"text": base64.b64encode(data).decode(), "encoding": "base64"}
        else:
            content["text"] = text
    comment = _comment(body)
    if comment:
        content["comment"] = comment
    return content


def _comment(body: HarContent) -> str:
    return f"not shown: {body.problem}" if body.problem else "cut: more of it came than was kept" if body.is_cut else ""


def text_of(data: bytes, media: str, is_cut: bool = False) -> str | None:
    """Return content as text, in the charset that its type names, or in UTF-8; None: it is no text."""
    if media.lower().startswith(("image/", "audio/", "video/", "font/")) and "svg" not in media.lower():
        return None
    named = _CHARSET.search(media)
    for charset in (named[1] if named else "utf-8", "utf-8"):
        try:
            # of what is cut, half a character may be the end
            text = codecs.getincrementaldecoder(charset)().decode(data, not is_cut)
        except (LookupError, ValueError, AttributeError, TypeError):
            continue
        if isinstance(text, str) and "\0" not in text:
            return text
    return None


def _message(started: float, message: FlowMessage) -> Json:
    kind = "receive" if message.to_client else "send"
    is_text = message.opcode == 1
    data = message.data.decode("utf-8", "replace") if is_text else base64.b64encode(message.data).decode()
    shown: Json = {"type": kind, "time": started + message.at, "opcode": message.opcode, "data": data}
    if message.size > len(message.data) and not is_text:
        shown["_size"] = message.size
    return shown


def _own(flow: HarFlow) -> Json:
    """Return what the format has no place for; what there is nothing to say of is left out."""
    own: Json = {"flowId": flow.flow_id, "kind": str(flow.kind), "outcome": flow.outcome or "open", "protocol": flow.protocol}
    if flow.program or flow.pid:
        own["program"] = {"name": flow.program, "pid": flow.pid}
    for name, value in (
        ("cause", flow.cause),
        ("decision", flow.decision),
        ("pattern", flow.pattern),
        ("upstreamHttpVersion", flow.upstream_http_version),
        ("grpcStatus", flow.grpc_status),
        ("missedMessages", flow.missed),
    ):
        if value:
            own[name] = value
    if flow.upstream_address is not None:
        own["upstream"] = format_host_port(*flow.upstream_address)
    cut = [name for name, body in (("request", flow.request), ("response", flow.response)) if body.is_cut or body.problem]
    if cut:
        own["truncated"] = cut
    if flow.masked:
        own["masked"] = list(flow.masked)
    if flow.protocol in ("sse", "streamable_http", "grpc"):
        own["events"] = _events(flow.response)
    if flow.call is not None:
        own["modelCall"] = {name: value for name, value in flow.call.items() if name not in _TEXTS_OF_CALLS and value is not None}
        own["modelCall"]["tools"] = [each["name"] for each in flow.call.get("tools") or []]
    return own


# which are in the content, or are counted among what is above
_TEXTS_OF_CALLS = ("text", "reasoning", "flow_id", "connection_id")


def _events(body: HarContent) -> list[Json]:
    """Return when which part of a stream came: offsets are those of the octets of `content.text`."""
    found = []
    offset = 0
    for at, data in body.chunks:
        found.append({"at": round(at, 6), "offset": offset, "size": len(data)})
        offset += len(data)
    return found


def har_url(flow: HarFlow) -> str:
    """Return the URL; of a WebSocket with its own scheme, of a tunnel that of its authority."""
    scheme = flow.scheme or "https"
    host = f"[{flow.host}]" if ":" in flow.host else flow.host
    authority = host if flow.port in (0, _PORTS.get(scheme)) else f"{host}:{flow.port}"
    if flow.kind is FlowKind.WEBSOCKET:
        scheme = _SOCKETS.get(scheme, scheme)
    path = flow.path if flow.path.startswith("/") else "/"
    return f"{scheme}://{authority}{path}"


# ---- fields


def field_text(value: bytes) -> str:
    """Return a name or a value of a field as text: UTF-8, or octet for character."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _headers(fields: Fields) -> list[Json]:
    return [{"name": field_text(name), "value": field_text(value)} for name, value in fields]


def _value(fields: Fields, wanted: bytes) -> str:
    return next((field_text(value) for name, value in fields if name.lower() == wanted), "")


def size_of(fields: Fields) -> int:
    """Return the bytes of fields in a head of HTTP/1, the ends of their lines included."""
    return sum(len(name) + len(value) + 4 for name, value in fields)


def _pairs(query: str) -> list[Json]:
    try:
        return [{"name": name, "value": value} for name, value in parse_qsl(query, keep_blank_values=True)]
    except ValueError:
        # more of them than are read
        return []


def _cookies(fields: Fields) -> list[Json]:
    found = []
    for name, value in fields:
        if name.lower() == b"cookie":
            for pair in field_text(value).split(";"):
                cookie, _, content = pair.strip().partition("=")
                if cookie:
                    found.append({"name": cookie, "value": content})
    return found


def _set_cookies(fields: Fields) -> list[Json]:
    found = []
    for name, value in fields:
        if name.lower() != b"set-cookie":
            continue
        pair, *attributes = field_text(value).split(";")
        cookie, _, content = pair.strip().partition("=")
        shown: Json = {"name": cookie, "value": content}
        for attribute in attributes:
            key, _, text = attribute.strip().partition("=")
            match key.lower():
                case "path" | "domain":
                    shown[key.lower()] = text
                case "httponly":
                    shown["httpOnly"] = True
                case "secure":
                    shown["secure"] = True
                case "samesite":
                    shown["sameSite"] = text
                case "expires":
                    shown |= _expires(text)
        found.append(shown)
    return found


def _expires(text: str) -> Json:
    try:
        return {"expires": parsedate_to_datetime(text).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")}
    except (ValueError, TypeError, IndexError, OverflowError):
        return {}


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_encodable(each) for each in value]
    return {_encodable(name): _encodable(each) for name, each in value.items()} if isinstance(value, dict) else value
