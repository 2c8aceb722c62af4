"""The tabs of one flow as lines: what was said to a model, the messages of a stream, heads and bodies, times."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec

from soth_mitm.cli.flow_lines import duration
from soth_mitm.cli.request_lines import size_text
from soth_mitm.llm.model_request import Part
from soth_mitm.views.answers import Answers
from soth_mitm.views.source import FlowDetails, FlowLine, FlowMessage, FlowSource, Side
from soth_mitm.views.terminal.cells import BAD, BOLD, FAINT, GOOD, PLAIN, Line, clean, cut, sides, wrapped
from soth_mitm.views.terminal.words import reason_of, state_of, target_of

TabName = Literal["conversation", "stream", "request", "response", "timing"]
TABS: tuple[TabName, ...] = ("conversation", "stream", "request", "response", "timing")

MOST_LINES = 20_000
"""Lines of a tab; what is longer ends with a line that says so."""
MOST_MESSAGES = 5000
_GAP_SECONDS = 1.0
_PREVIEW = 2000
_BAR = 26


class FlowPage(NamedTuple):
    """One flow, ready to be drawn."""

    flow: int
    tab: TabName
    width: int
    is_open: bool
    title: list[Line]
    counts: dict[TabName, int | None]
    """What stands behind the name of a tab; None: it is empty."""
    lines: list[Line]


def first_tab(line: FlowLine) -> TabName:
    """Return the tab that a flow is opened with."""
    if line.kind in ("tunnel", "refused"):
        return "timing"
    return "conversation" if line.is_model_call else "stream" if line.has_messages else "response"


class Pages:
    """Makes pages out of what `source` gives. It may take its time: call it in a thread of its own, one call at a time."""

    def __init__(self, source: FlowSource) -> None:
        self._source = source
        self._answers = Answers(source)

    def page(self, flow: int, tab: TabName, width: int) -> FlowPage | None:
        """Return a tab of a flow; None: it is not kept any more."""
        details = self._source.details(flow)
        if details is None:
            return None
        line = details.line
        counts: dict[TabName, int | None] = {name: 0 for name in TABS}
        counts["conversation"] = 0 if line.is_model_call else None
        counts["stream"] = (line.message_count or 0) if line.has_messages else None
        lines = list(self._some(details, tab, width))
        return FlowPage(flow, tab, width, line.is_open, title_of(details, width), counts, lines)

    def body(self, flow: int, side: Side) -> str | None:
        """Return a body as text, or None."""
        found = self._answers.body_text(flow, side)
        return None if found is None else str(found["text"])

    def _some(self, details: FlowDetails, tab: TabName, width: int) -> Iterator[Line]:
        for number, line in enumerate(self._lines(details, tab, width)):
            if number == MOST_LINES:
                yield from wrapped(f"more than {MOST_LINES:,} lines; all of it: soth-mitm flows show {details.line.id}", width, FAINT)
                return
            yield line

    def _lines(self, details: FlowDetails, tab: TabName, width: int) -> Iterator[Line]:
        match tab:
            case "conversation":
                return self._conversation(details, width)
            case "stream":
                return self._stream(details, width)
            case "request":
                return self._side(details, "request", width)
            case "response":
                return self._side(details, "response", width)
            case "timing":
                return timing(details, width)

    # --- a call of a model

    def _conversation(self, details: FlowDetails, width: int) -> Iterator[Line]:
        if not details.line.is_model_call:
            yield [("This is no call of a model.", FAINT)]
            return
        found = self._answers.conversation(details.line.id, False)
        if found is None:
            return
        call = found["call"]
        yield from _figures(details.line, call, width)
        for problem in [*found["problems"], *(() if call is None else call["problems"])]:
            yield from wrapped(f"! {problem}", width, BAD)
        turns = found["turns"]
        earlier = found["earlier"]
        if earlier is not None:
            count = earlier["count"]
            said = f"{count} earlier message{'' if count == 1 else 's'}, the same as in flow {earlier['flow']:,}"
            yield [(cut(f"── {said} ".ljust(width - 1, "─"), width - 1), FAINT)]
            turns = turns[count:]
        for turn in turns:
            yield from _turn(turn.role, turn.parts, width)
        if call is not None:
            yield from _answer(call, details.line, width)

    # --- a stream

    def _stream(self, details: FlowDetails, width: int) -> Iterator[Line]:
        line = details.line
        if not line.has_messages:
            yield [("This is no stream, and no WebSocket.", FAINT)]
            return
        found = self._source.messages(line.id, max(0, (line.message_count or 0) - MOST_MESSAGES), MOST_MESSAGES)
        if found is None:
            return
        if found.missed:
            yield from wrapped(f"! {found.missed:,} messages came faster than they could be kept", width, BAD)
        if found.total > len(found.messages):
            yield [(f"the last {len(found.messages):,} of {found.total:,}", FAINT)]
        if line.kind == "websocket":
            yield from _conversation_of(found.messages, width)
        else:
            yield from _groups(found.messages, width)
            yield []
            yield from self._assembled(details, found.messages, width)
        if line.is_open:
            yield [("● open: more may come", GOOD)]

    def _assembled(self, details: FlowDetails, messages: tuple[FlowMessage, ...], width: int) -> Iterator[Line]:
        if details.line.is_model_call:
            found = self._answers.conversation(details.line.id, True)
            if found is not None and found["call"] is not None:
                yield [("the answer, put together", FAINT)]
                yield from _answer(found["call"], details.line, width)
                return
        yield [("what it said", FAINT)]
        for message in messages:
            yield from wrapped(_pretty(message.text) + (" …" if message.is_cut else ""), width, FAINT if message.is_binary else PLAIN)

    # --- heads and bodies

    def _side(self, details: FlowDetails, side: Side, width: int) -> Iterator[Line]:
        line = details.line
        if line.kind in ("tunnel", "refused"):
            yield from wrapped("Nothing of this was looked at: " + (reason_of(line) or line.kind), width, FAINT)
            return
        is_request = side == "request"
        fields = details.request_fields if is_request else details.response_fields
        if is_request:
            yield from wrapped(f"{line.method} {line.path} {details.http_version}", width, BOLD)
        elif line.status:
            yield from wrapped(f"{line.status} {details.upstream_http_version or details.http_version}", width, BOLD)
        else:
            yield [("No response was sent" if not line.is_open else "No response yet", FAINT)]
        yield from _fields(fields, width)
        yield []
        yield from self._body(line.id, side, width)
        trailers = details.request_trailers if is_request else details.response_trailers
        if trailers:
            yield []
            yield [("trailers", FAINT)]
            yield from _fields(trailers, width)

    def _body(self, flow: int, side: Side, width: int) -> Iterator[Line]:
        body = self._answers.body_text(flow, side)
        if body is None:
            return
        size = body["size"]
        said = "no body" if not size else f"{size_text(size)} on the wire"
        if body["coding"]:
            said += f", {body['coding']}, {size_text(body['decoded'])} decoded"
        yield [(cut(said, width), FAINT)]
        for problem in (body["problem"], body["lost"]):
            if problem:
                yield from wrapped(f"! {problem}", width, BAD)
        text = body["text"] if body["is_binary"] or body["is_cut"] else _pretty(body["text"])
        if text:
            yield from wrapped(text, width)
        if body["is_cut"]:
            yield [("… more of it is kept than is shown", FAINT)]


def title_of(details: FlowDetails, width: int) -> list[Line]:
    """Return the two lines that stand above the tabs."""
    line = details.line
    mark, word, style = state_of(line)
    took = "" if line.is_open else f"   {duration(line.took)}"
    right: Line = [(f" {mark} {word}{took} ", style)]
    room = width - len(right[0][0]) - 1
    left: Line = [(cut(f"{line.method} {target_of(line)}", room), BOLD)]
    versions = details.http_version
    if details.upstream_http_version and details.upstream_http_version != versions:
        versions += f" ↔ {details.upstream_http_version}"
    program = f"{line.program or 'unknown program'}{'' if line.pid is None else f' {line.pid}'}"
    sizes = "".join(
        "" if size is None else f"  {size_text(size)} {arrow}" for size, arrow in ((line.request_size, "↑"), (line.response_size, "↓"))
    )
    return [sides(left, right, width), [(cut(f"flow {line.id:,}  {program}  {versions}{sizes}", width), FAINT)]]


def timing(details: FlowDetails, width: int) -> Iterator[Line]:
    """Yield when which step was, and who was at both ends."""
    line = details.line
    yield [(f"began      {datetime.fromtimestamp(line.started):%Y-%m-%d %H:%M:%S.%f}"[:-3], PLAIN)]
    at = details.timings
    took = at.get("ended") or line.took or 0.0
    rows = (
        ("decided", at.get("decided"), "the handler had decided"),
        ("connected", at.get("acquired"), _connection(at)),
        ("sent", at.get("sent"), "the whole request was sent on"),
        ("first byte", at.get("first_byte"), "the response began"),
        ("ended", at.get("ended") if line.took is None else line.took, "" if line.is_open else "the flow ended"),
    )
    for name, seconds, what in rows:
        if seconds is None:
            yield [(f"{name:<11}", PLAIN), ("unknown" if name != "ended" or not line.is_open else "open", FAINT)]
            continue
        share = min(_BAR, round(_BAR * seconds / took)) if took > 0 else 0
        yield [(f"{name:<11}{duration(seconds):>9}  ", PLAIN), (("━" * share).ljust(_BAR) + " ", GOOD), (what, FAINT)]
    for loss in details.losses:
        yield from wrapped(f"! {loss}", width, BAD)
    for title, pairs in (("why", details.why), ("client", details.client), ("upstream", details.upstream)):
        if pairs:
            yield []
            yield [(title, BOLD)]
            yield from _pairs(pairs, width)


def _connection(at: dict[str, float | None]) -> str:
    dialled, tls = at.get("dialled"), at.get("tls")
    if dialled is None:
        return "over a connection that was there"
    return f"a new connection took {duration(dialled)}" + ("" if tls is None else f", {duration(tls)} of it TLS")


def _pairs(pairs: Iterable[tuple[str, str]], width: int) -> Iterator[Line]:
    for name, value in pairs:
        label = f"{cut(name, 20)}  "
        first = True
        for [(text, _)] in wrapped(value, max(10, width - max(22, len(label)))):
            yield [(label.ljust(22) if first else " " * 22, FAINT), (text, PLAIN)]
            first = False


def _fields(fields: Iterable[tuple[str, str]], width: int) -> Iterator[Line]:
    for name, value in fields:
        label = cut(name, 40)
        lines = list(wrapped(f"{label}: {value}", width))
        (text, _), *_ = lines[0]
        head = min(len(label) + 1, len(text))
        yield [(text[:head], GOOD), (text[head:], PLAIN)]
        yield from lines[1:]


def _pretty(text: str) -> str:
    """Return JSON with a line for each of its values, other text as it is."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return msgspec.json.format(text, indent=2)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return text


# --- calls of models


def _count(value: int | None, word: str) -> str:
    return f"{word} unknown" if value is None else f"{value:,} {word}"


def _figures(line: FlowLine, call: dict[str, Any] | None, width: int) -> Iterator[Line]:
    if call is None:
        yield [(cut(line.model or line.provider, width), BOLD)]
        return
    tokens = call["tokens"]
    figures = [clean(str(call["model"] or "model unknown"))]
    # until the end, what is sent of the output's count is a beginning
    figures += [_count(tokens["input"], "in"), "out not counted yet" if line.is_open else _count(tokens["output"], "out")]
    took, first = call["duration"], call["first_token"]
    if not line.is_open and tokens["output"] and took and first is not None and took > first:
        figures.append(f"{tokens['output'] / (took - first):.0f} tokens/s")
    if first is not None:
        figures.append(f"first after {duration(first)}")
    yield [(cut("   ".join(figures), width), BOLD)]
    total, cached = tokens["input"], tokens["cache_read"]
    if total and cached is not None and cached <= total:
        share = round(_BAR * cached / total)
        written = f"  {tokens['cache_write']:,} of it written to the cache" if tokens["cache_write"] else ""
        bar = "▒" * share + "█" * (_BAR - share)
        yield [(bar, GOOD), (cut(f"  ▒ cached {cached:,}  █ new {total - cached:,}{written}", width - _BAR), FAINT)]
    yield []


def _turn(role: str, parts: Iterable[Part], width: int) -> Iterator[Line]:
    label = role
    for part in parts:
        prefix = {"call": f"→ {part.name} ", "result": f"← {part.name} ".replace("  ", " "), "reasoning": "(reasoning) "}.get(part.kind, "")
        if part.kind == "result" and part.is_error:
            prefix += "(failed) "
        if part.kind == "media":
            prefix = "[media] "
        text = part.text
        if role == "system" and len(text) > _PREVIEW:
            text = f"{text[:_PREVIEW]} … {len(text) - _PREVIEW:,} more characters are in the request"
        yield from _labelled(label, prefix + text, width, FAINT if part.kind == "reasoning" or role == "system" else PLAIN)
        label = ""


def _labelled(label: str, text: str, width: int, style: Any = PLAIN) -> Iterator[Line]:
    for [(line, _)] in wrapped(text, width - 11):
        yield [(f"{cut(label, 10):<11}", BOLD), (line, style)]
        label = ""


def _answer(call: dict[str, Any], line: FlowLine, width: int) -> Iterator[Line]:
    label = "assistant"
    for text, style in ((call["reasoning"], FAINT), (call["text"], PLAIN)):
        if text:
            yield from _labelled(label, text, width, style)
            label = ""
    for tool in call["tools"]:
        yield from _labelled(label, f"→ {tool['name']} {tool['arguments']}{'' if tool['complete'] else ' …'}", width)
        label = ""
    if call["error"]:
        yield from _labelled("error", str(call["error"]), width, BAD)
    if line.is_open:
        yield [(" " * 11, PLAIN), ("● goes on", GOOD)]
    elif line.is_lost or call["outcome"] == "cut":
        yield from _labelled("", f"! {line.outcome.replace('_', ' ') or 'cut'}: this is not all of it", width, BAD)
    elif call["stop"]:
        yield [(" " * 11, PLAIN), (cut(f"stopped by {call['stop']}", width - 11), FAINT)]


# --- messages


def _groups(messages: tuple[FlowMessage, ...], width: int) -> Iterator[Line]:
    """Yield a line for each run of events of one type, and one for each second without any."""
    start = 0
    last = messages[0].at if messages else 0.0
    for index, message in enumerate(messages):
        is_last = index + 1 == len(messages)
        gap = 0.0 if is_last else messages[index + 1].at - message.at
        if not is_last and gap <= _GAP_SECONDS and messages[index + 1].kind == message.kind:
            continue
        run = messages[start : index + 1]
        count = f" ×{len(run)}" if len(run) > 1 else ""
        kind = f"{cut(message.kind, max(10, width - 36))}{count}"
        whole = "  cut within" if message.is_cut and not message.is_binary else ""
        yield [(f"{duration(run[0].at):>9}  ", FAINT), (kind, PLAIN), (f"  {size_text(sum(each.size for each in run))}{whole}", FAINT)]
        start, last = index + 1, message.at
        if gap > _GAP_SECONDS:
            yield [(f"{'':>9}  ── nothing for {duration(gap)} ──", FAINT)]
    if messages:
        yield [(f"{duration(last):>9}  {len(messages):,} events, {size_text(sum(each.size for each in messages))}", FAINT)]


def _conversation_of(messages: tuple[FlowMessage, ...], width: int) -> Iterator[Line]:
    for message in messages:
        arrow = "↓" if message.to_client else "↑"
        head = f"{arrow} {duration(message.at):>9} {message.kind:<7} {size_text(message.size):>9}  "
        if message.is_binary:
            yield [(head, FAINT), (cut(message.text, max(8, width - len(head))), FAINT)]
            continue
        text = message.text[:_PREVIEW] + (" …" if message.is_cut or len(message.text) > _PREVIEW else "")
        first = True
        for [(line, _)] in wrapped(text, max(20, width - len(head))):
            yield [(head if first else " " * len(head), FAINT), (line, PLAIN)]
            first = False
