"""One line for each request, stream, tunnel, refusal and failed handshake: an observer of the proxy, which decides nothing."""

import re
from collections.abc import Callable
from datetime import datetime

from soth_mitm.addresses import format_host_port
from soth_mitm.cli.display import Part
from soth_mitm.connection import ConnectionMeta, ProcessInfo
from soth_mitm.observe.observation import Event, EventKind, Verdict

Show = Callable[..., None]
"""Called with the parts of a line."""

BAD = "bold red"
GRPC_STATUS_NAMES = {
    str(number): name
    for number, name in enumerate(
        (
            *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
            *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
            *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
        )
    )
}
LONGEST_GRPC_STATUS = 4
# of RFC 6455 section 7.4.1
NO_CODE = 1005
GOOD_CODES = (1000, 1001, NO_CODE)
_TUNNELS = {
    "unlisted": "it is not in interception.destinations",
    "handler": "by the handler",
    "bypass": "a TLS bypass: its program keeps refusing our certificate (tls.learn_bypass)",
    "unknown_protocol": "neither TLS nor HTTP inside (interception.unknown_protocol)",
}

_UNTRUSTED = (
    "it does not trust our CA, or pins another certificate: start it with the variables of `soth-mitm ca env`, "
    "or see `soth-mitm ca install`"
)


class RequestLines:
    """Called with each event of a proxy; calls `show` with a line for those that a user wants to see."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._has_hinted = False
        self._has_hinted_at_trust = False

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event.kind:
            case EventKind.REQUEST:
                if event.verdict is Verdict.NOT_APPLIED:
                    self._flow(event, ("would be BLOCKED (monitor)", BAD))
                elif event.verdict is Verdict.OTHER_NOT_APPLIED:
                    self._flow(event, ("would not go on as it is (monitor)", BAD))
                elif event.verdict is Verdict.UNDECIDED:
                    self._flow(event, ("the handler failed", BAD), "forwarded, because handler.failure_policy is allow")
            case EventKind.RESPONSE:
                if event.is_websocket:
                    self._flow(event, (f"{event.status} WebSocket opened", _style(event.status)), _took(event))
                elif event.is_stream:
                    self._flow(event, (f"{event.status} stream", _style(event.status)), _took(event))
            case EventKind.FLOW_END:
                self._end(event)
            case EventKind.TUNNEL:
                self._line(event, "CONNECT", _target(event), ("tunnel", "cyan"), self._why(event))
            case EventKind.REFUSED:
                word = "BLOCKED" if event.status == 403 else "refused"
                what = ("CONNECT", _target(event)) if event.host else ("-", "first bytes")
                self._line(event, *what, (f"{word} {event.status or 'closed'}", BAD), event.cause)
            case EventKind.TLS_FAILED if event.meta is not None:
                # of a handshake with the upstream, which has no client, the lines of the requests that wait for it say as much
                self._line(event, "TLS", event.host, ("failed", BAD), self._why_refused(event))

    def _end(self, event: Event) -> None:
        if event.verdict is Verdict.ABORTED:
            self._flow(event, ("aborted by the handler", BAD), _took(event))
        elif event.verdict is Verdict.ANSWERED and not event.cause:
            self._flow(event, (str(event.status), _style(event.status)), "by the handler", _took(event))
        elif event.verdict is Verdict.BLOCKED:
            self._flow(event, (f"BLOCKED {event.status}", BAD), _took(event))
        elif event.cause:
            cause = f"the handler failed: {event.cause}" if event.verdict is Verdict.FAILED else event.cause
            word = "cut" if event.status == 0 or event.size else "refused" if event.status < 500 else "failed"
            self._flow(event, (f"{word} {event.status or ''}".strip(), BAD), cause, _took(event))
        elif event.is_websocket:
            self._flow(event, _websocket_outcome(event), *_messages(event), _took(event))
        elif event.is_stream:
            outcome = _grpc_outcome(event.grpc_status) or ("stream ended", "magenta")
            self._flow(event, outcome, size_text(event.size), _took(event))
        else:
            self._flow(event, (str(event.status), _style(event.status)), size_text(event.size), _took(event))

    def _why(self, event: Event) -> str:
        why = _TUNNELS.get(event.cause, event.cause)
        if event.cause == "unlisted" and not self._has_hinted:
            self._has_hinted = True
            return f"{why}, so requests to it are not seen; to intercept it: --destination '{_target(event)}'"
        return why

    def _why_refused(self, event: Event) -> str:
        if event.certificate_refused and not self._has_hinted_at_trust:
            self._has_hinted_at_trust = True
            return f"{event.cause}; {_UNTRUSTED}"
        return event.cause

    def _flow(self, event: Event, outcome: Part, *rest: str) -> None:
        version = ("h2",) if event.http_version == "HTTP/2" else ()
        self._line(event, event.method, without_query_values(event.url), outcome, *rest, *version)

    def _line(self, event: Event, method: str, what: str, outcome: Part, *rest: str) -> None:
        head = (f"{datetime.now():%H:%M:%S} ", "dim"), (f"{_client(event.meta):<16} ", "blue"), (f"{method:<7} ", "bold"), f"{what} "
        self._show(*head, outcome, (f" {'  '.join(rest)}", "dim"))


def without_query_values(url: str) -> str:
    """Return a URL in which the values of the query, where keys and tokens stand, are left out."""
    place, mark, query = url.partition("?")
    return f"{place}{mark}{re.sub(r'=[^&]*', '=…', query)}"


def _target(event: Event) -> str:
    return format_host_port(event.host, event.port)


def _name(process: ProcessInfo | None) -> str:
    return "" if process is None else process.exe_name or f"pid {process.pid}"


def _client(meta: ConnectionMeta | None) -> str:
    if meta is None:
        return ""
    remote: tuple[str, int] | None = getattr(meta.socket_family, "remote", None)
    return _name(meta.process_info) or (remote[0] if remote else "unix socket")


def _style(status: int) -> str:
    return "green" if status < 300 else "yellow" if status < 400 else "red"


def _grpc_outcome(status: str | None) -> Part | None:
    """Return what became of a gRPC call, in the names of its specification; None if its upstream did not say."""
    if status is None:
        return None
    if not (status.isascii() and status.isdigit() and len(status) <= LONGEST_GRPC_STATUS):
        # a text that the upstream chose could be read as the outcome of another call
        return "gRPC, its status is no number", "red"
    name = GRPC_STATUS_NAMES.get(status, "")
    return f"gRPC {status} {name}".rstrip(), "green" if status == "0" else "red"


def _websocket_outcome(event: Event) -> Part:
    if event.messages is None:
        return "WebSocket ended", "magenta"
    if event.closed_by == "nobody":
        return "WebSocket ended without a Close", "yellow"
    code = "without a code" if event.close_code == NO_CODE else str(event.close_code)
    return f"WebSocket closed {code} by the {event.closed_by}", "green" if event.close_code in GOOD_CODES else "yellow"


def _messages(event: Event) -> tuple[str, ...]:
    return () if event.messages is None else (f"{event.messages[0]} messages sent, {event.messages[1]} received",)


def _took(event: Event) -> str:
    return f"{event.seconds * 1000:.0f} ms"


def size_text(count: float) -> str:
    """Say how many bytes these are."""
    if count < 1024:
        return f"{count} B"
    for unit in ("KiB", "MiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} GiB"
