"""Flows as lines of a table, for `soth-mitm flows`: what happened, in a width that fits; only exceptions have colour."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.text import Text

from soth_mitm.cli.request_lines import size_text
from soth_mitm.escaping import shown
from soth_mitm.observe.filter_predicate import FAILED
from soth_mitm.observe.store.flow_row import FlowRow

BAD, CHANGING, FAINT = "red", "yellow", "dim"
NARROW = 100
"""Columns below which the program's column is short, and the last one too."""

# What the refusal of a destination that is not listed says
_NOT_LISTED = "interception.passthrough_unlisted"
BAD_ENDS = {
    "upstream_error": "failed",
    "upstream_timeout": "timeout",
    "cut_by_client": "cut",
    "cut_by_upstream": "cut",
    "cut_by_proxy": "cut",
    "blocked": "blocked",
    "refused": "refused",
    "aborted": "aborted",
}
"""How flows may end that did not go well, in a word."""


def moment(seconds: float, now: datetime | None = None) -> str:
    """Return a time of day, with the date before it unless it is today's."""
    when = datetime.fromtimestamp(seconds)
    today = (now or datetime.now()).date()
    return f"{when:%H:%M:%S}" if when.date() == today else f"{when:%m-%d %H:%M}" if when.year == today.year else f"{when:%Y-%m-%d}"


def duration(seconds: float | None) -> str:
    """Return a time in three digits or so; `""` where it is not known."""
    if seconds is None:
        return ""
    if seconds < 0.9995:
        milliseconds = seconds * 1000
        if milliseconds < 0.1:
            return f"{seconds * 1e6:.0f} µs"
        return f"{milliseconds:.1f} ms" if milliseconds < 9.95 else f"{milliseconds:.0f} ms"
    if seconds < 99.5:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def status_text(row: FlowRow) -> Text:
    """Return what became of a flow in a word or a number."""
    if row.state == "open":
        return Text("open", CHANGING)
    if row.state == "lost":
        return Text("lost", BAD)
    word = BAD_ENDS.get(row.outcome)
    if word is not None:
        return Text(word, BAD)
    if row.kind == "tunnel":
        return Text("tunnel", FAINT)
    if row.kind == "websocket" and row.status in (101, 200):
        return Text("websocket", FAINT)
    return Text(str(row.status) if row.status else "none", BAD if row.status >= 500 else CHANGING if row.status >= 400 else "")


def tokens_text(row: FlowRow) -> str:
    """Return the tokens of a call of a model: in, then out; what was not counted is `?`."""
    if row.tokens_in is None and row.tokens_out is None:
        return "unknown tokens"
    return " → ".join("?" if count is None else f"{count:,}" for count in (row.tokens_in, row.tokens_out))


def last_column(row: FlowRow) -> str:
    """Return tokens, why it went wrong, or the size of the answer."""
    if row.provider is not None and row.state == "over" and row.outcome not in BAD_ENDS and row.status < 400:
        return tokens_text(row)
    if row.outcome in BAD_ENDS or row.kind == "refused":
        return "not on the list" if _NOT_LISTED in row.reason else row.reason or row.outcome.replace("_", " ")
    if row.error:
        return row.error
    if row.kind == "tunnel":
        return f"{size_text(row.request_bytes)} up, {size_text(row.response_bytes)} down"
    return size_text(row.response_bytes)


def request_text(row: FlowRow) -> str:
    """Return method and URL; the scheme is left out where it is `https`."""
    where = f"{row.host}:{row.port}" if not row.scheme else row.url.removeprefix("https://")
    return f"{row.method} {where}"


_TITLES = ("ID", "TIME", "PROGRAM", "REQUEST", "STATUS", "TOOK", "TOKENS / SIZE")
_RIGHT = ("ID", "TOOK")
_REQUEST = 3
# Of a list that goes on, of which the widths are not known before
_LEAST = (6, 8, 8, 20, 9, 8, 0)


def print_lines(console: Console, rows: Sequence[FlowRow], *, with_titles: bool = True) -> None:
    """Print flows, a line each. On a terminal a line is as wide as that; elsewhere as long as it is."""
    is_narrow = console.width < NARROW
    most = (12, 11, 7 if is_narrow else 14, 1000, 9, 10, 14 if is_narrow else 32) if console.is_terminal else (1000,) * 7
    gap = 1 if is_narrow and console.is_terminal else 2
    lines = [_cells(row) for row in rows]
    wide = [[cell.cell_len for cell in line] for line in lines]
    if with_titles:
        lines.insert(0, [Text(title, FAINT) for title in _TITLES])
        wide.append([len(title) for title in _TITLES])
    else:
        wide.append(list(_LEAST))
    widths = [min(most[column], max(line[column] for line in wide)) for column in range(len(_TITLES))]
    if console.is_terminal:
        room = console.width - sum(widths) + widths[_REQUEST] - gap * (len(widths) - 1)
        widths[_REQUEST] = max(20, min(widths[_REQUEST], room) if with_titles else room)
    for line in lines:
        parts: list[Text] = []
        for title, width, cell in zip(_TITLES, widths, line, strict=True):
            cell.truncate(width, overflow="ellipsis")
            pad = Text(" " * (width - cell.cell_len))
            parts += [*((pad, cell) if title in _RIGHT else (cell, pad)), Text(" " * gap)]
        whole = Text.assemble(*parts)
        whole.rstrip()
        console.print(whole, soft_wrap=True)


def _cells(row: FlowRow) -> list[Text]:
    return [
        Text(str(row.id)),
        Text(moment(row.started)),
        Text(shown(row.program)),
        Text(shown(request_text(row))),
        status_text(row),
        Text(duration(row.took)),
        Text(shown(last_column(row)), BAD if row.outcome in FAILED or row.outcome == "blocked" else ""),
    ]
