"""What the control plane counts, once per connection; the data plane has counters of its own."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class ConnectionCounters:
    """One per proxy; `soth_mitm.metrics` says what each means."""

    accepted: int = 0
    rejected: int = 0
    dial_errors: int = 0
    dial_timeouts: int = 0
    denied_addresses: int = 0
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
