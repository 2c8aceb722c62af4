"""Flows as JSON, for programs: what `--json` and `export --ndjson` print, in ASCII."""

import base64
import json
from typing import Any

import msgspec

from soth_mitm.observe.flow_record import Fields
from soth_mitm.observe.store.flow_content import FlowContent, Side
from soth_mitm.observe.store.flow_row import FlowRow

_DELETE = str.maketrans({"\x7f": "\\u007f"})


def as_json(value: Any) -> str:
    """Return JSON in one line that no terminal acts upon."""
    return json.dumps(value, ensure_ascii=True, separators=(", ", ": ")).translate(_DELETE)


def row_object(row: FlowRow) -> dict[str, Any]:
    """Return the columns of a flow, and its URL; null is unknown."""
    found = msgspec.structs.asdict(row)
    found["url"] = row.url
    found["tools"] = row.tools.split() if row.tools else []
    for name in ("words", "revision", "piece_count"):
        del found[name]
    return found


def flow_object(content: FlowContent) -> dict[str, Any]:
    """Return a flow with its content."""
    found = row_object(content.row)
    detail = msgspec.to_builtins(content.detail)
    found["detail"] = detail
    found["request"] = _side(content.request)
    found["response"] = _side(content.response)
    if content.row.kind == "websocket":
        found["messages"] = [
            {
                "at": message.at_us / 1e6,
                "to_client": message.to_client,
                "opcode": message.opcode,
                "size": message.size,
                **_data(message.data),
            }
            for message in content.messages
        ]
    return found


def _side(side: Side) -> dict[str, Any]:
    found: dict[str, Any] = {"headers": _fields(side.fields)}
    if side.trailers:
        found["trailers"] = _fields(side.trailers)
    if side.body:
        found |= _data(side.body)
    for name, is_so in (("shortened", side.is_shortened), ("undecoded", side.is_undecoded), ("binary", side.is_binary)):
        if is_so:
            found[name] = True
    return found


def _fields(fields: Fields) -> list[list[str]]:
    return [[name.decode("latin-1"), value.decode("utf-8", "replace")] for name, value in fields]


def _data(data: bytes) -> dict[str, str]:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
