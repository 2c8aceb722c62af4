"""The fields and flags of the filter language, and how their values are written: `size>2k`, `took>=1.5s`, `status:4xx`, `since:10m`."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import NamedTuple


class FieldKind(Enum):
    """What the values of a field are."""

    TEXT = auto()
    NUMBER = auto()
    SIZE = auto()
    SECONDS = auto()
    TIME = auto()
    CONTENT = auto()
    """Text that is not in the flow's row, but in its content."""


class Field(NamedTuple):
    """One field: its kind, what it means in words, and the columns it is made of."""

    kind: FieldKind
    meaning: str
    columns: tuple[str, ...] = ()
    """Of a `FlowRow`; of several numbers the sum."""


FIELDS: dict[str, Field] = {
    "host": Field(FieldKind.TEXT, "host of the request or the tunnel", ("host",)),
    "path": Field(FieldKind.TEXT, "path, with its query", ("path",)),
    "url": Field(FieldKind.TEXT, "whole URL; of a tunnel host and port", ("url",)),
    "method": Field(FieldKind.TEXT, "method, `CONNECT` of a tunnel", ("method",)),
    "status": Field(FieldKind.NUMBER, "status that the client was told, 0: none; also `4xx` and `500-599`", ("status",)),
    "type": Field(FieldKind.TEXT, "media type of the response", ("media",)),
    "app": Field(FieldKind.TEXT, "name of the client's program", ("program",)),
    "pid": Field(FieldKind.NUMBER, "process id of the client's program", ("pid",)),
    "client": Field(FieldKind.TEXT, "address of the client", ("client",)),
    "protocol": Field(FieldKind.TEXT, "`http1`, `http2`, `sse`, `streamable_http`, `grpc`, `websocket` or `tunnel`", ("protocol",)),
    "outcome": Field(FieldKind.TEXT, "what came of it: `answered`, `blocked`, `cut_by_client` and so on", ("outcome",)),
    "reason": Field(FieldKind.TEXT, "why it was blocked, failed, cut or not intercepted", ("reason",)),
    "took": Field(FieldKind.SECONDS, "how long it took", ("took",)),
    "firstbyte": Field(FieldKind.SECONDS, "time until the response's head", ("first_byte",)),
    "size": Field(FieldKind.SIZE, "bytes of the response's content, as sent", ("response_bytes",)),
    "sent": Field(FieldKind.SIZE, "bytes of the request's content, as sent", ("request_bytes",)),
    "id": Field(FieldKind.NUMBER, "number of the flow", ("id",)),
    "connection": Field(FieldKind.TEXT, "id of the client's connection", ("connection",)),
    "since": Field(FieldKind.TIME, "begun at this time or later: `10m` ago, `14:02`, `2026-11-30T14:02`", ("started",)),
    "until": Field(FieldKind.TIME, "begun at this time or earlier", ("started",)),
    "provider": Field(FieldKind.TEXT, "provider of the model that was called", ("provider",)),
    "model": Field(FieldKind.TEXT, "model that was called", ("model",)),
    "tokens": Field(FieldKind.NUMBER, "tokens of a model call, in and out", ("tokens_in", "tokens_out")),
    "in": Field(FieldKind.NUMBER, "tokens in, cached ones included", ("tokens_in",)),
    "out": Field(FieldKind.NUMBER, "tokens out, reasoning included", ("tokens_out",)),
    "cached": Field(FieldKind.NUMBER, "tokens in that came from the provider's cache", ("tokens_cached",)),
    "tool": Field(FieldKind.TEXT, "names of the tools that the model asked for", ("tools",)),
    "stop": Field(FieldKind.TEXT, "why the model stopped, in the provider's word", ("stop",)),
    "body": Field(FieldKind.CONTENT, "text of both bodies and of messages, read one by one"),
}
HEADER = "header."
"""Begins the name of a field of a head, of the request or of the response."""

FLAGS: dict[str, str] = {
    "llm": "a call of a model",
    "stream": "answered by a stream of events or of lines of JSON",
    "ws": "a WebSocket",
    "grpc": "a call of gRPC",
    "open": "not over",
    "blocked": "blocked, by a rule, the handler or the list of destinations",
    "failed": "failed: the upstream was not reached or broke a rule, or the request was refused",
    "cut": "ended before its end",
    "tunnel": "relayed unread",
    "tls": "over TLS, and intercepted",
    "error": "failed, or answered with a status from 400 on",
    "replayed": "sent again by `soth-mitm flows replay`",
}

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)")
_SIZES = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": 1000,
    "m": 10**6,
    "mb": 10**6,
    "g": 10**9,
    "gb": 10**9,
    "kib": 1024,
    "mib": 1 << 20,
    "gib": 1 << 30,
}
_COUNTS = {"": 1, "k": 1000, "m": 10**6, "g": 10**9}
_SECONDS = {"": 1, "us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_UNITS: dict[FieldKind, Mapping[str, float]] = {FieldKind.SIZE: _SIZES, FieldKind.NUMBER: _COUNTS, FieldKind.SECONDS: _SECONDS}
_EXAMPLES = {FieldKind.SIZE: "2k, 1.5M or 300", FieldKind.NUMBER: "404, 4xx, 500-599 or 2k", FieldKind.SECONDS: "300ms, 1.5s or 2m"}
_CLASS = re.compile(r"([1-9])xx", re.IGNORECASE)
# what a column of the store can hold
_MOST = 2**63 - 1


def number_of(kind: FieldKind, text: str) -> float:
    """Return a number with its unit as what is stored: bytes, seconds, or a count. `ValueError` says how it is written."""
    match = _NUMBER.fullmatch(text)
    unit = None if match is None else _UNITS[kind].get(match[2].lower())
    if match is None or unit is None:
        raise ValueError(f'"{text}" is no number; write {_EXAMPLES[kind]}')
    value = float(match[1]) * unit
    if value > _MOST:
        raise ValueError(f'"{text}" is too large')
    return int(value) if value.is_integer() else value


def range_of(kind: FieldKind, text: str) -> tuple[float, float]:
    """Return the first and the last number that `text` means: `404`, `4xx`, `500-599`. `ValueError` says how it is written."""
    match = _CLASS.fullmatch(text)
    if match is not None and kind is FieldKind.NUMBER:
        return int(match[1]) * 100, int(match[1]) * 100 + 99
    first, dash, last = text.partition("-")
    low = number_of(kind, first)
    return (low, number_of(kind, last)) if dash else (low, low)


def time_of(text: str, now: datetime) -> float:
    """Return a moment in seconds since 1970: so long before `now`, a time of day, or a date with or without a time, in local time.

    `ValueError` says how it is written.
    """
    match = _NUMBER.fullmatch(text)
    if match is not None and match[2]:
        return now.timestamp() - number_of(FieldKind.SECONDS, text)
    if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text):
        hour, minute, second = [int(part) for part in f"{text}:0".split(":")][:3]
        if hour < 24 and minute < 60 and second < 60:
            moment = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
            return (moment if moment <= now else moment - timedelta(days=1)).timestamp()
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f'"{text}" is no time; write 10m (ago), 14:02 or 2026-11-30T14:02') from None
