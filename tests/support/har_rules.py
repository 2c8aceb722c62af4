"""What HAR 1.2 asks of a file, written from its specification: `problems_of` returns what is wrong with one."""

import base64
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d)")
_PAIR: dict[str, Any] = {"name": str, "value": str, "comment?": str}
_COOKIE: dict[str, Any] = _PAIR | {"path?": str, "domain?": str, "expires?": "moment", "httpOnly?": bool, "secure?": bool, "sameSite?": str}
_SIZE = "size"
_MESSAGE: dict[str, Any] = {
    "headers": [_PAIR],
    "cookies": [_COOKIE],
    "headersSize": _SIZE,
    "bodySize": _SIZE,
    "httpVersion": str,
    "comment?": str,
}
_POST: dict[str, Any] = {"mimeType": str, "params": [_PAIR], "text": str, "comment?": str}
_CONTENT: dict[str, Any] = {"size": int, "compression?": int, "mimeType": str, "text?": str, "encoding?": str, "comment?": str}
_TIMES: dict[str, Any] = {
    **{"blocked?": "time", "dns?": "time", "connect?": "time", "ssl?": "time", "comment?": str},
    **{"send": "spent", "wait": "spent", "receive": "spent"},
}
_ENTRY: dict[str, Any] = {
    "pageref?": str,
    "startedDateTime": "moment",
    "time": "spent",
    "request": _MESSAGE | {"method": str, "url": str, "queryString": [_PAIR], "postData?": _POST},
    "response": _MESSAGE | {"status": int, "statusText": str, "content": _CONTENT, "redirectURL": str},
    "cache": {},
    "timings": _TIMES,
    "serverIPAddress?": str,
    "connection?": str,
    "comment?": str,
}
_HAR: dict[str, Any] = {
    "log": {
        "version": str,
        "creator": {"name": str, "version": str},
        "browser?": {"name": str, "version": str},
        "pages?": [{}],
        "entries": [_ENTRY],
        "comment?": str,
    }
}


def problems_of(har: Any) -> list[str]:
    """Return what is wrong with a HAR file that was read as JSON; fields of one's own begin with an underscore."""
    found = [*_check(har, _HAR, "har")]
    if found:
        return found
    if har["log"]["version"] != "1.2":
        found.append("the version is not 1.2")
    for number, entry in enumerate(har["log"]["entries"]):
        found += (f"entry {number}: {problem}" for problem in _problems_of_entry(entry))
    return found


def _problems_of_entry(entry: dict[str, Any]) -> Iterator[str]:
    timings = entry["timings"]
    whole = sum(timings[name] for name in ("blocked", "dns", "connect", "send", "wait", "receive") if timings.get(name, -1) > 0)
    if abs(whole - entry["time"]) > 0.01:
        yield f"time is {entry['time']}, the sum of the timings {whole}"
    if timings.get("ssl", -1) > timings.get("connect", -1):
        yield "ssl takes longer than connect, of which it is a part"
    content = entry["response"]["content"]
    if "encoding" in content:
        if content["encoding"] != "base64":
            yield f"the encoding is {content['encoding']}"
        base64.b64decode(content["text"], validate=True)
    if not re.match(r"(https?|wss?)://[^/]+/", entry["request"]["url"]):
        yield f"the URL is {entry['request']['url']}"


def _check(value: Any, wanted: Any, place: str) -> Iterator[str]:
    if isinstance(wanted, dict):
        if not isinstance(value, dict):
            yield f"{place} is no object"
            return
        for name, inner in wanted.items():
            if name.removesuffix("?") in value:
                yield from _check(value[name.removesuffix("?")], inner, f"{place}.{name.removesuffix('?')}")
            elif not name.endswith("?"):
                yield f"{place}.{name} is not there"
        known = {name.removesuffix("?") for name in wanted}
        yield from (f"{place}.{name} is not in the format" for name in value if name not in known and not name.startswith("_"))
    elif isinstance(wanted, list):
        if not isinstance(value, list):
            yield f"{place} is no list"
            return
        for number, each in enumerate(value):
            yield from _check(each, wanted[0], f"{place}[{number}]")
    elif wanted == "moment":
        if not isinstance(value, str) or not _MOMENT.fullmatch(value):
            yield f"{place} is no moment: {value!r}"
        else:
            datetime.fromisoformat(value.replace("Z", "+00:00"))
    elif isinstance(wanted, str):
        least = {"size": -1, "time": -1, "spent": 0}[wanted]
        if isinstance(value, bool) or not isinstance(value, int | float) or value < least or (-1 < value < 0):
            yield f"{place} is {value!r}"
    elif type(value) is not wanted:
        yield f"{place} is no {wanted.__name__}: {value!r}"
