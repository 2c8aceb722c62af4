"""A flow in the words and the line of the list: what became of it by mark and word, never by colour alone."""

from rich.style import Style

from soth_mitm.addresses import format_host_port
from soth_mitm.cli.flow_lines import BAD_ENDS, duration, moment
from soth_mitm.cli.request_lines import size_text
from soth_mitm.observe.filter_predicate import FAILED
from soth_mitm.views.source import FlowLine
from soth_mitm.views.terminal.cells import BAD, CHANGING, FAINT, GOOD, PLAIN, Line, fit

_CUT = ("cut_by_client", "cut_by_upstream", "cut_by_proxy")
_REASONS = {"interception.passthrough_unlisted": "not on the list", "unlisted": "not on the list"}
WIDE_LIST = 100


def state_of(line: FlowLine) -> tuple[str, str, Style]:
    """Return the mark, the word and the style of what became of a flow."""
    if line.is_lost:
        return "!", "lost", BAD
    if line.is_open:
        return "●", "open", GOOD
    word = BAD_ENDS.get(line.outcome)
    if word is not None:
        return ("!" if line.outcome in _CUT else "✗"), word, BAD
    if line.kind == "tunnel":
        return "○", "tunnel", FAINT
    word = "ws" if line.kind == "websocket" and line.status in (101, 200) else str(line.status) if line.status else "none"
    if line.status >= 500 or line.outcome in FAILED:
        return "✗", word, BAD
    if line.status >= 400:
        return "!", word, CHANGING
    return ("▌" if line.is_model_call else " "), word, PLAIN


def tokens_of(line: FlowLine) -> str:
    """Return the tokens of a call of a model: in, then out."""
    if line.tokens_in is None and line.tokens_out is None and not line.is_open:
        return "unknown"
    missing = "…" if line.is_open else "?"
    return " → ".join(missing if count is None else f"{count:,}" for count in (line.tokens_in, line.tokens_out))


def last_of(line: FlowLine) -> str:
    """Return tokens, why it went wrong, or a size."""
    if line.outcome in BAD_ENDS and line.outcome not in _CUT:
        return reason_of(line)
    if line.is_model_call and line.status < 400:
        return tokens_of(line)
    if line.kind == "tunnel":
        return size_text((line.request_size or 0) + (line.response_size or 0))
    return "" if line.response_size is None else size_text(line.response_size)


def reason_of(line: FlowLine) -> str:
    """Return why a flow ended as it did, `""` if there is nothing to say."""
    return _REASONS.get(line.cause, line.cause) or line.outcome.replace("_", " ")


def target_of(line: FlowLine) -> str:
    """Return what was asked for: authority and path, the scheme where it is not `https`."""
    if not line.scheme:
        return format_host_port(line.host, line.port)
    default = line.port == {"https": 443, "http": 80}.get(line.scheme)
    host = f"[{line.host}]" if ":" in line.host else line.host
    place = host if default else format_host_port(line.host, line.port)
    return f"{'' if line.scheme == 'https' else f'{line.scheme}://'}{place}{line.path}"


def list_line(line: FlowLine, width: int, *, has_time: bool, has_took: bool) -> Line:
    """Return the line of a flow in exactly `width` cells."""
    mark, word, style = state_of(line)
    is_wide = width >= WIDE_LIST
    program, last = (12, 20) if is_wide else (7, 15)
    fixed = 3 + (9 if has_time else 0) + program + 1 + 8 + 1 + 7 + 1 + last + (9 if has_took else 0) + 1
    pieces: Line = [(f" {mark} ", style)]
    if has_time:
        pieces.append((fit(moment(line.started), 8) + " ", FAINT))
    pieces += [
        (fit(line.program or "-", program) + " ", PLAIN),
        (fit(line.method or "-", 7) + " ", PLAIN),
        (fit(target_of(line), max(8, width - fixed)) + " ", PLAIN),
        (fit(word, 7, right=True) + " ", style),
        (fit(last_of(line), last, right=True) + " ", style if style is BAD else PLAIN),
    ]
    if has_took:
        pieces.append((fit("…" if line.is_open else duration(line.took), 8, right=True) + " ", FAINT))
    return pieces


def short(number: int) -> str:
    """Return a count in a few characters: 901, 15.8 k, 2.1 M."""
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (10_000, "k")):
        if number >= size:
            return f"{number / (1000 if unit == 'k' else size):.1f} {unit}"
    return f"{number:,}"
