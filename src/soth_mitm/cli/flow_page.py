"""One flow on a terminal, for `soth-mitm flows show`: what happened, then the conversation of a model, or heads and bodies."""

import json
from collections.abc import Iterable, Iterator

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from soth_mitm.cli.flow_lines import BAD, FAINT, duration, moment, request_text, status_text
from soth_mitm.cli.request_lines import size_text
from soth_mitm.escaping import shown
from soth_mitm.llm.model_request import Part, Turn, read_model_request
from soth_mitm.observe.flow_record import Fields
from soth_mitm.observe.store.flow_content import FlowContent, FlowMessageEvent, Side
from soth_mitm.observe.store.flow_row import FlowRow

LINES = 40
"""Lines of a body that are shown, unless it is asked for alone."""
LONGEST_LINE = 2000
_TURNS = 2
"""Messages at the end of a conversation that are shown; the others are counted."""
_TEXT_LINES = 12
_VERSIONS = {"HTTP/2": "h2", "HTTP/1.1": "HTTP/1.1", "HTTP/1.0": "HTTP/1.0"}


def lines_of(text: str) -> list[str]:
    """Return the lines of what a peer sent, each escaped, tabs as blanks."""
    return [shown(line.expandtabs(4)) for line in text.split("\n")]


def show_flow(console: Console, content: FlowContent) -> None:
    """Print a flow as people want to see it first."""
    for part in _summary(content):
        console.print(part, soft_wrap=True)
    if content.row.provider is not None and content.detail.call is not None:
        console.print()
        _show_conversation(console, content)
    elif content.row.kind in ("http", "websocket"):
        show_side(console, content, content.request, most=LINES)
        show_side(console, content, content.response, most=LINES)
        if content.row.kind == "websocket" or content.row.protocol in ("sse", "streamable_http", "grpc"):
            show_events(console, content, most=LINES)


# --- the first lines


def _summary(content: FlowContent) -> Iterator[RenderableType]:
    row, detail = content.row, content.detail
    end = f" in {duration(row.took)}" if row.took is not None else ""
    yield Text.assemble((shown(request_text(row)), "bold"), "   ", status_text(row), _number(row), end)
    if row.reason:
        yield Text(shown(row.reason), BAD if row.outcome not in ("answered", "tunnelled") else FAINT)
    yield Text(" · ".join(_client(content)), FAINT)
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style=FAINT, no_wrap=True)
    facts.add_column()
    for name, value in (*_call_facts(content), ("timing", _timing(content)), ("stored", _stored(content))):
        if value:
            facts.add_row(name, Text(shown(value)))
    if detail.websocket_close is not None:
        code, by = detail.websocket_close
        facts.add_row("closed", f"{code} by the {shown(by)}" if code else "without a Close")
    if facts.row_count:
        yield facts


def _number(row: FlowRow) -> str:
    return f" {row.status}" if row.status and not str(status_text(row)).isdigit() and row.kind == "http" else ""


def _client(content: FlowContent) -> Iterator[str]:
    row, detail = content.row, content.detail
    program = shown(row.program) if row.program else f"client {shown(row.client)}"
    started = f", started by {shown(detail.parent)}" if detail.parent else ""
    yield f"flow {row.id}, {moment(row.started)}"
    yield program + (f", pid {row.pid}" if row.pid is not None else "") + started
    versions = [_VERSIONS.get(each, shown(each)) for each in (detail.http_version, detail.upstream_http_version) if each]
    if versions:
        yield f"{versions[0]} both sides" if len(set(versions)) == 1 and len(versions) == 2 else " to ".join(versions)
    if detail.tls_version:
        yield shown(detail.tls_version).replace("TLSv", "TLS ")
    yield f"{size_text(row.request_bytes)} up, {size_text(row.response_bytes)} down"
    if detail.answered_by in ("handler", "proxy") and row.status:
        yield f"answered by the {detail.answered_by}"
    if row.replayed:
        yield "replayed"


def _call_facts(content: FlowContent) -> Iterator[tuple[str, str]]:
    row, call = content.row, content.detail.call
    if row.provider is None:
        return
    yield "model", f"{row.model or '(not said)'} of {row.provider}"
    if call is None:
        return
    tokens = call.get("tokens")
    if isinstance(tokens, dict):
        yield "tokens", _tokens(tokens)
    words = []
    if row.first_token is not None:
        words.append(f"first token {duration(row.first_token)}")
        rest = (row.took or 0) - row.first_token
        if row.tokens_out and rest > 0.05:
            words.append(f"{row.tokens_out / rest:.0f} tokens/s")
    if row.stop:
        words.append(f"stopped by {row.stop}")
    if row.tools:
        words.append(f"tools: {row.tools.replace(' ', ', ')}")
    if call.get("complete") is False:
        words.append("cut before its end")
    yield "answer", ", ".join(words)
    if row.error:
        yield "error", row.error
    problems = call.get("problems")
    if isinstance(problems, list) and problems:
        yield "problems", "; ".join(str(problem) for problem in problems)


def _tokens(tokens: dict[str, object]) -> str:
    def number(name: str) -> str:
        value = tokens.get(name)
        return f"{value:,}" if isinstance(value, int) else "unknown"

    if tokens.get("missing"):
        return f"unknown ({str(tokens['missing']).replace('_', ' ')})"
    cache = [f"{number(name)} {word}" for name, word in (("cache_read", "from cache"), ("cache_write", "to cache")) if tokens.get(name)]
    reasoning = f" ({number('reasoning')} reasoning)" if tokens.get("reasoning") else ""
    return f"input {number('input')}{_in_brackets(cache)}   output {number('output')}{reasoning}"


def _in_brackets(words: list[str]) -> str:
    return f" ({', '.join(words)})" if words else ""


def _timing(content: FlowContent) -> str:
    timings, row = content.detail.timings, content.row
    words = []
    if timings.decided is not None:
        words.append(f"decision {duration(timings.decided)}")
    if timings.dialled is not None:
        tls = timings.tls or 0.0
        words.append(f"connect {duration(timings.dialled - tls)}")
        if timings.tls is not None:
            words.append(f"TLS {duration(timings.tls)}")
    if timings.first_byte is not None:
        words.append(f"first byte {duration(timings.first_byte)}")
        if row.took is not None:
            words.append(f"rest {duration(max(0.0, row.took - timings.first_byte))}")
    return " · ".join(words)


def _stored(content: FlowContent) -> str:
    words = []
    for name, side in (("request", content.request), ("response", content.response)):
        if side.is_binary:
            words.append(f"the {name}'s body is binary, and kept by size only")
        elif side.is_undecoded:
            words.append(f"the {name}'s content coding could not be removed")
        elif side.is_shortened:
            words.append(f"the {name}'s body is not kept whole")
    if content.detail.missed:
        words.append(f"{content.detail.missed} messages are not kept")
    return "; ".join(words)


# --- heads and bodies


def show_side(console: Console, content: FlowContent, side: Side, *, most: int | None = None) -> None:
    """Print a head and a body; at most so many lines of it."""
    is_request = side is content.request
    row = content.row
    if not side.fields and not side.body:
        if most is None:
            console.print(Text("nothing is kept of it", FAINT))
        return
    console.print()
    detail = content.detail
    version = detail.http_version if is_request else detail.upstream_http_version or detail.http_version
    first = f"{row.method} {row.path}" if is_request else str(row.status)
    console.print(Text(shown(f"{first} {version}".strip()), "bold"), soft_wrap=True)
    _show_fields(console, side.fields)
    if side.body:
        console.print()
        lines = pretty_body(side)
        for line in lines[:most]:
            console.print(Text(line[:LONGEST_LINE] + ("…" if len(line) > LONGEST_LINE else "")), soft_wrap=True)
        if most is not None and len(lines) > most:
            name = "--request" if is_request else "--response"
            console.print(Text(f"… {len(lines) - most} more lines: soth-mitm flows show {row.id} {name}", FAINT), soft_wrap=True)
    if side.trailers:
        console.print()
        _show_fields(console, side.trailers)


def _show_fields(console: Console, fields: Fields) -> None:
    for name, value in fields:
        line = Text.assemble((shown(name.decode("latin-1")), "cyan"), ": ", shown(value.decode("utf-8", "replace")))
        console.print(line, soft_wrap=True)


def pretty_body(side: Side) -> list[str]:
    """Return the lines of a body, escaped; JSON with a field in each."""
    return lines_of(_pretty(side).removesuffix("\n"))


def _pretty(side: Side) -> str:
    if "json" in side.media and "ndjson" not in side.media:
        try:
            return json.dumps(json.loads(side.text), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            # as it was sent
            pass
    return side.text


# --- events and messages


def show_events(console: Console, content: FlowContent, *, most: int | None = None) -> None:
    """Print the events of a stream, or the messages of a WebSocket, a line each; at most so many lines."""
    lines = list(_messages(content) if content.row.kind == "websocket" else _events(content.events()))
    if not lines:
        console.print(Text("no events are kept", FAINT))
        return
    console.print()
    for line in lines[:most]:
        console.print(line, soft_wrap=most is None, no_wrap=most is not None, overflow="ellipsis", crop=most is not None)
    if most is not None and len(lines) > most:
        console.print(Text(f"… {len(lines) - most} more: soth-mitm flows show {content.row.id} --events", FAINT))


def _events(events: Iterable[FlowMessageEvent]) -> Iterator[Text]:
    for event in events:
        arrow = "↓" if event.to_client else "↑"
        kind = shown(event.event_type or "") if event.event_type not in (None, "message") else ""
        cut = "" if event.is_complete else "  (cut)"
        yield _event_line(event.at, arrow, kind, shown(event.data.decode("utf-8", "replace")) + cut)


def _messages(content: FlowContent) -> Iterator[Text]:
    for message in content.messages:
        arrow = "↓" if message.to_client else "↑"
        if message.opcode == 8:
            code = int.from_bytes(message.data[:2], "big")
            reason = shown(message.data[2:].decode("utf-8", "replace"))
            yield _event_line(message.at_us / 1e6, arrow, "close", f"{code or ''} {reason}".strip())
        elif message.opcode == 2:
            yield _event_line(message.at_us / 1e6, arrow, "binary", size_text(message.size))
        else:
            rest = f" … {size_text(message.size)}" if len(message.data) < message.size else ""
            yield _event_line(message.at_us / 1e6, arrow, "", shown(message.data.decode("utf-8", "replace")) + rest)


def _event_line(at: float, arrow: str, kind: str, text: str) -> Text:
    return Text.assemble((f"{duration(at):>8} {arrow} ", FAINT), (f"{kind} " if kind else "", "cyan"), text[:LONGEST_LINE])


# --- conversations


def _show_conversation(console: Console, content: FlowContent) -> None:
    call = content.detail.call or {}
    asked = read_model_request(str(call.get("family") or ""), content.request.body)
    turns = [turn for turn in asked.turns if turn.role != "system"]
    hidden = len(turns) - _TURNS
    if hidden > 0:
        earlier = "1 earlier message" if hidden == 1 else f"{hidden} earlier messages"
        console.print(Text(f"{earlier}: soth-mitm flows show {content.row.id} --request", FAINT))
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(style="bold", no_wrap=True, min_width=9)
    table.add_column(overflow="fold")
    for turn in turns[-_TURNS:]:
        table.add_row(turn.role, _turn(turn))
    table.add_row("assistant", _answer(call))
    console.print(table)


def _turn(turn: Turn) -> RenderableType:
    return Group(*(_part(part) for part in turn.parts))


def _part(part: Part) -> Text:
    match part.kind:
        case "call":
            return Text(f"→ {shown(part.name)} {_some(part.text)}", "cyan")
        case "result":
            return Text(f"← {shown(part.name)} {_some(part.text)}", BAD if part.is_error else FAINT)
        case "reasoning":
            return Text(_some(part.text), f"{FAINT} italic")
        case "media" | "other":
            return Text(_some(part.text), FAINT)
    return Text(_some(part.text))


def _answer(call: dict[str, object]) -> RenderableType:
    parts: list[Text] = []
    for name, style in (("reasoning", f"{FAINT} italic"), ("text", "")):
        text = call.get(name)
        if isinstance(text, str) and text:
            parts.append(Text(_some(text), style))
    tools = call.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        parts.append(Text(f"→ {shown(str(tool.get('name')))} {_some(str(tool.get('arguments')))}", "cyan"))
    if isinstance(call.get("error"), str):
        parts.append(Text(_some(str(call["error"])), BAD))
    return Group(*(parts or [Text("nothing", FAINT)]))


def _some(text: str) -> str:
    """Return the first lines of a text, escaped."""
    lines = lines_of(text.strip("\n"))
    more = f"\n… {len(lines) - _TEXT_LINES} more lines" if len(lines) > _TEXT_LINES else ""
    return "\n".join(line[:LONGEST_LINE] for line in lines[:_TEXT_LINES]) + more
