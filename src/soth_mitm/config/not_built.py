"""Keys that are accepted and verified, but have no behaviour yet.

Their documentation says so. tests/meta/test_config_readers.py holds this list to the truth: each key here has no reader outside the
configuration itself, each other key has one. It shrinks to nothing.
"""

LATER_KEYS: frozenset[str] = frozenset(
    (
        "workers",
        "http3_passthrough",
        "via_header",
        "max_flow_event_backlog",
        "accept_retry_backoff_ms",
        "flow_runtime.closed_flow_lru_capacity",
        "flow_runtime.stale_flow_ttl_ms",
        "flow_runtime.stale_reap_max_batch",
        "flow_runtime.dispatch_close_join_timeout_ms",
    )
)

# Values other than the default that say what this build does anyway: there is nothing to warn of.
SATISFIED_LATER: dict[str, object] = {"http3_passthrough": False}

# Keys that a build can do nothing about, and why.
NEVER: dict[str, str] = {
    "accept_retry_backoff_ms": "the event loop accepts connections, and has no setting for this: with no descriptors left, uvloop drops a "
    "client at once and asyncio waits for a second"
}
