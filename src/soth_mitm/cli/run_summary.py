"""What the program of `soth-mitm exec` has asked for: by host, with what models have counted, and what did not get through."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from soth_mitm.addresses import format_host_port
from soth_mitm.cli.request_lines import size_text
from soth_mitm.escaping import shown
from soth_mitm.llm.model_call import ModelCall
from soth_mitm.observe.observation import Event, EventKind, Verdict

# Names are the peers' to choose: those beyond are one line
MOST_NAMES = 500
OTHERS = "(others)"
# What the refusal of a destination that is not listed says
NOT_LISTED = "interception.passthrough_unlisted"
# Lines of a kind that are shown; JSON has all
SHOWN = 12


@dataclass
class Tokens:
    """A sum of what was counted. `uncounted` is how many calls came without a count: an unknown number is not zero."""

    calls: int = 0
    uncounted: int = 0
    input: int = 0
    cache_read: int = 0
    output: int = 0

    def add(self, call: ModelCall) -> None:
        """Add a call."""
        tokens = call.tokens
        self.calls += 1
        self.uncounted += tokens.input is None and tokens.output is None
        self.input += tokens.input or 0
        self.cache_read += tokens.cache_read or 0
        self.output += tokens.output or 0

    def __str__(self) -> str:
        if self.calls == self.uncounted:
            return f"{self.calls} calls, not counted" if self.calls else ""
        cached = f" ({self.cache_read:,} from cache)" if self.cache_read else ""
        return f"{self.input:,} in{cached}, {self.output:,} out"


@dataclass
class Host:
    """What one host was asked."""

    requests: int = 0
    failed: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    tokens: Tokens = field(default_factory=Tokens)


class RunSummary:
    """Told of each event and of each call of a model; read at the end."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.blocked: Counter[str] = Counter()
        """By the handler, or by a rule other than the list of destinations."""
        self.not_allowed: Counter[str] = Counter()
        """Not in the list of destinations, where that is all that is allowed."""
        self.failures: Counter[str] = Counter()
        """Hosts with the reasons why requests to them failed."""
        self.tunnels: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        """Hosts of TLS handshakes in which the program did not take our certificate."""
        self.tools: Counter[str] = Counter()
        self.models: dict[str, Tokens] = {}

    def __call__(self, event: Event) -> None:
        """Count one event."""
        match event.kind:
            case EventKind.FLOW_END:
                self._count(event)
            case EventKind.TUNNEL:
                _add(self.tunnels, format_host_port(event.host, event.port))
            case EventKind.REFUSED if event.host:
                _add(self._stopped_by(event), format_host_port(event.host, event.port))
            case EventKind.TLS_FAILED if event.certificate_refused:
                _add(self.refused, event.host)

    def on_call(self, call: ModelCall) -> None:
        """Count a call of a model."""
        if call.request is not None:
            self._host(_host_of(call.request.url)).tokens.add(call)
        model = call.model_answered or call.model_asked or "?"
        self.models.setdefault(model if model in self.models or len(self.models) < MOST_NAMES else OTHERS, Tokens()).add(call)
        for tool in call.tools:
            _add(self.tools, tool.name)

    def _count(self, event: Event) -> None:
        # a cause: the answer was ours
        if event.verdict is Verdict.BLOCKED or (event.cause and event.status == 403):
            _add(self._stopped_by(event), _authority_of(event.url))
            return
        host = self._host(_host_of(event.url))
        host.requests += 1
        if event.cause:
            host.failed += 1
            _add(self.failures, f"{_host_of(event.url)}: {event.cause}")
        host.request_bytes += event.request_size
        host.response_bytes += event.size

    def _stopped_by(self, event: Event) -> Counter[str]:
        return self.not_allowed if NOT_LISTED in event.cause else self.blocked

    def _host(self, name: str) -> Host:
        return self.hosts.setdefault(name if name in self.hosts or len(self.hosts) < MOST_NAMES else OTHERS, Host())

    @property
    def saw_nothing(self) -> bool:
        """Tell whether the program has asked for nothing at all."""
        return not (self.hosts or self.blocked or self.not_allowed or self.tunnels or self.refused)

    def as_json(self) -> dict[str, Any]:
        """Return everything for a program to read."""
        return {
            "hosts": {
                name: {
                    "requests": host.requests,
                    "failed": host.failed,
                    "request_bytes": host.request_bytes,
                    "response_bytes": host.response_bytes,
                    "model_calls": host.tokens.calls,
                }
                for name, host in self.hosts.items()
            },
            "models": {name: vars(tokens) for name, tokens in self.models.items()},
            "tools": dict(self.tools),
            "failures": dict(self.failures),
            "blocked": dict(self.blocked),
            "not_allowed": dict(self.not_allowed),
            "tunnels": dict(self.tunnels),
            "refused_our_certificate": dict(self.refused),
        }

    def table(self) -> RenderableType:
        """Return what a person sees."""
        if self.saw_nothing:
            return Text(
                "no request was seen: the program made none, reached hosts of --direct only, or does not use the proxy of its environment; "
                "soth-mitm doctor tells which programs do"
            )
        parts: list[RenderableType] = []
        if self.hosts:
            parts.append(self._hosts_table())
        if self.tools:
            parts.append(Text(f"tools called: {_most(self.tools)}"))
        for failure, count in self.failures.most_common(SHOWN):
            parts.append(Text.assemble((f"failed ×{count}: ", "red"), shown(failure)))
        if self.blocked:
            parts.append(Text.assemble(("blocked: ", "bold red"), _most(self.blocked)))
        if self.not_allowed:
            first = f"--allow '{shown(next(iter(self.not_allowed)))}'"
            parts.append(Text.assemble(("not allowed: ", "bold red"), _most(self.not_allowed), ("   to allow one: ", "dim"), first))
        if self.tunnels:
            parts.append(Text(f"not looked into, neither TLS nor HTTP: {_most(self.tunnels)}"))
        if self.refused:
            parts.append(
                Text.assemble(("our certificate was refused: ", "bold red"), _most(self.refused), ("   next: soth-mitm doctor", "dim"))
            )
        return Group(*parts)

    def _hosts_table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        table.add_column("host")
        for title in ("requests", "up", "down"):
            table.add_column(title, justify="right")
        has_calls = bool(self.models)
        if has_calls:
            table.add_column("model tokens")
        ranked = sorted(self.hosts.items(), key=lambda item: -item[1].requests)
        for name, host in ranked[:SHOWN]:
            failed = f" ({host.failed} failed)" if host.failed else ""
            row = [shown(name), f"{host.requests}{failed}", size_text(host.request_bytes), size_text(host.response_bytes)]
            table.add_row(*row, *([str(host.tokens)] if has_calls else []))
        if len(ranked) > SHOWN:
            rest = [host for _, host in ranked[SHOWN:]]
            table.add_row(
                f"and {len(rest)} more",
                str(sum(host.requests for host in rest)),
                size_text(sum(host.request_bytes for host in rest)),
                size_text(sum(host.response_bytes for host in rest)),
            )
        return table


def _add(counter: Counter[str], name: str) -> None:
    counter[name if name in counter or len(counter) < MOST_NAMES else OTHERS] += 1


def _most(counter: Counter[str]) -> str:
    """Name the most frequent ones."""
    words = [f"{shown(name)} ×{count}" if count > 1 else shown(name) for name, count in counter.most_common(SHOWN)]
    more = len(counter) - SHOWN
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")


def _host_of(url: str) -> str:
    return urlsplit(url).hostname or url


def _authority_of(url: str) -> str:
    parts = urlsplit(url)
    return format_host_port(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
