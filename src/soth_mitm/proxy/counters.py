"""What the control plane counts, once per connection; the data plane has counters of its own."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class ConnectionCounters:
    """One per proxy; `soth_mitm.metrics` says what each means."""

    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """By reason."""
    dial_failures: Counter[str] = field(default_factory=Counter)
    """By reason."""
    dial_timeouts: Counter[str] = field(default_factory=Counter)
    """By what was late."""
    reloads: Counter[str] = field(default_factory=Counter)
    """By what came of them."""
    dns_lookups: int = 0
    dns_cache_hits: int = 0
    client_handshakes: int = 0
    client_resumed: int = 0
    client_tls_failures: Counter[str] = field(default_factory=Counter)
    """By failure class."""
    client_abandoned: int = 0
    client_refusals: int = 0
    bypasses_opened: int = 0
    bypassed_connections: int = 0
    unknown_protocols: int = 0
    upstream_handshakes: int = 0
    upstream_resumed: int = 0
    upstream_tls_failures: Counter[str] = field(default_factory=Counter)
    """By failure class."""
    credentials_redacted: int = 0
    credentials_put_in: Counter[str] = field(default_factory=Counter)
    """By placeholder."""

    @property
    def denied_addresses(self) -> int:
        """Dials that were not made."""
        return self.dial_failures["denied"]

    @property
    def dial_errors(self) -> int:
        """Dials that were made, and failed."""
        return self.dial_failures.total() - self.denied_addresses
