"""A flow, and a call of a model, in the attributes of OpenTelemetry's conventions."""

import json
import re
from typing import Any

from soth_mitm.llm.json_text import decoded
from soth_mitm.llm.model_call import ModelCall
from soth_mitm.observe.flow_record import FlowKind, FlowRecord, FlowUpdate
from soth_mitm.observe.masking import Masker
from soth_mitm.observe.otel_names import METHODS, OTHER

AttributeValue = str | int | float | bool | list[str]
Attributes = dict[str, AttributeValue]

_FINE = ("answered", "responded", "tunnelled", "")
_PORTS = {"https": 443, "http": 80}
# the conventions have a word of their own
_MASKED = re.compile(r"masked%20[^&#;,\s%]*(?:%(?!26|23)[0-9A-F]{2}[^&#;,\s%]*)*")
_REDACTED = "REDACTED"


def method_of(record: FlowRecord) -> str:
    """Return the method, `_OTHER` for one that is not well known."""
    method = record.method or "CONNECT"
    return method if method in METHODS else OTHER


def error_type_of(record: FlowRecord) -> str | None:
    """Return what went wrong, in one of few words: an outcome, or a status from 400 on."""
    if record.outcome not in _FINE:
        return record.outcome
    return str(record.status) if record.status >= 400 else None


def version_of(record: FlowRecord) -> str | None:
    """Return the version of HTTP that the client speaks, as the conventions have it."""
    return record.http_version.removeprefix("HTTP/") or None


def url_of(record: FlowRecord, masker: Masker) -> str:
    """Return the URL without credentials."""
    scheme = record.scheme or "https"
    host = f"[{record.host}]" if ":" in record.host else record.host
    authority = host if record.port in (0, _PORTS.get(scheme)) else f"{host}:{record.port}"
    path = masker.path(record.path if record.path.startswith("/") else "/")
    return f"{scheme}://{authority}{_MASKED.sub(_REDACTED, path)}"


def flow_attributes(record: FlowRecord, masker: Masker) -> Attributes:
    """Return the attributes of a flow's span. What is not known has none."""
    process = record.connection.process_info
    found: dict[str, AttributeValue | None] = {
        "http.request.method": method_of(record),
        "http.request.method_original": record.method if method_of(record) == OTHER else None,
        "url.full": url_of(record, masker) if record.kind in (FlowKind.HTTP, FlowKind.WEBSOCKET) else None,
        "server.address": record.host or None,
        "server.port": record.port or None,
        "http.response.status_code": record.status or None,
        "error.type": error_type_of(record),
        "network.protocol.name": "http" if record.http_version else None,
        "network.protocol.version": version_of(record),
        "network.peer.address": None if record.upstream_address is None else record.upstream_address[0],
        "network.peer.port": None if record.upstream_address is None else record.upstream_address[1],
        "http.request.body.size": record.request_size,
        "http.response.body.size": record.response_size,
        "rpc.grpc.status_code": int(record.grpc_status) if record.grpc_status and record.grpc_status.isdecimal() else None,
        "sothmitm.flow.id": record.flow_id,
        "sothmitm.flow.kind": str(record.kind),
        "sothmitm.outcome": record.outcome,
        "sothmitm.protocol": record.protocol or None,
        "sothmitm.pattern": record.pattern or None,
        "sothmitm.decision": record.decision or None,
        "sothmitm.cause": record.cause or None,
        "sothmitm.program": None if process is None else process.exe_name,
        "sothmitm.pid": None if process is None else process.pid,
    }
    return {name: encodable(value) if isinstance(value, str) else value for name, value in found.items() if value is not None}


def encodable(text: str) -> str:
    """Return text that can be encoded."""
    return text.encode("utf-8", "backslashreplace").decode()


# ---- what was said, only where it is asked for


def message_attributes(call: ModelCall, flow: FlowUpdate, masker: Masker) -> Attributes:
    """Return what the model was asked and what it answered, as JSON in the conventions' form, masked."""
    parts: list[dict[str, Any]] = []
    if call.reasoning:
        parts.append({"type": "reasoning", "content": call.reasoning})
    if call.text:
        parts.append({"type": "text", "content": call.text})
    parts += [{"type": "tool_call", "id": tool.id, "name": tool.name, "arguments": tool.arguments} for tool in call.tools]
    answer = [{"role": "assistant", "parts": parts, "finish_reason": call.finish or "unknown"}]
    found: Attributes = {"gen_ai.output.messages": _json(answer, masker)}
    body = call.request.body if call.request is not None else b""
    try:
        asked = decoded(body)
    except ValueError:
        return found
    if isinstance(asked, dict):
        system = asked.get("system") or asked.get("instructions") or asked.get("systemInstruction")
        if system:
            found["gen_ai.system_instructions"] = _json(_parts(system), masker)
        found["gen_ai.input.messages"] = _json(_messages(asked), masker)
    return found


def _json(value: Any, masker: Masker) -> str:
    return encodable(masker.text(encodable(json.dumps(value, ensure_ascii=False)).encode()).decode("utf-8", "replace"))


def _messages(asked: dict[str, Any]) -> list[dict[str, Any]]:
    messages: Any = next((asked[name] for name in ("messages", "contents", "input", "prompt") if asked.get(name)), [])
    if not isinstance(messages, list):
        messages = [{"role": "user", "content": messages}]
    return [
        {"role": str(each.get("role", "user")), "parts": _parts(each.get("content", each.get("parts", each)))}
        if isinstance(each, dict)
        else {"role": "user", "parts": _parts(each)}
        for each in messages
    ]


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, list):
        return [part for each in content for part in _parts(each)]
    if isinstance(content, dict):
        if isinstance(content.get("parts"), list):
            return _parts(content["parts"])
        if isinstance(content.get("text"), str):
            return [{"type": "text", "content": content["text"]}]
        return [{"type": str(content.get("type", "other")), "content": content}]
    return [{"type": "text", "content": content if isinstance(content, str) else json.dumps(content)}]
