"""What the metrics endpoint tells: a table of families, each with its exact meaning and the counters that it is made of.

Labels have closed sets of values, and none is a text that a peer chose. A family whose samples may be added up says what the sum is.
docs/metrics.md is made from this table.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

from soth_mitm.metrics import ProxyMetrics

PREFIX = "sothmitm_"

Kind = Literal["counter", "gauge", "histogram"]
Values = tuple[str, ...]
Sample = tuple[Values, float]


class Figures(NamedTuple):
    """What there is to tell at one moment."""

    metrics: ProxyMetrics
    ca_not_after: float
    """In seconds since 1970."""


class Distribution(NamedTuple):
    """How many took how long: up to each edge in seconds, and longer; then the sum of the seconds."""

    counts: Mapping[str, int]
    """By edge, in ascending order; the last one has no edge, whatever its name."""
    seconds: float


class Family(NamedTuple):
    """One metric. `fields` are those of `ProxyMetrics` that it is made of."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    samples: Callable[[Figures], Iterator[Sample]] = lambda figures: iter(())
    distributions: Callable[[Figures], Iterator[tuple[Values, Distribution]]] = lambda figures: iter(())
    """In place of samples, of a histogram."""

    @property
    def full_name(self) -> str:
        """The name as it is exported."""
        return PREFIX + self.name


def _of(name: str, kind: Kind, field: str, meaning: str) -> Family:
    """Make a family of one field."""
    return Family(name, kind, meaning, (), (field,), lambda figures: iter([((), getattr(figures.metrics, field))]))


def _by(name: str, kind: Kind, labels: str, values: Mapping[str, str], meaning: str) -> Family:
    """Make a family of fields: `values` has the values of the labels, as text, with the field that counts each."""

    def samples(figures: Figures) -> Iterator[Sample]:
        return ((tuple(texts.split()), getattr(figures.metrics, field)) for texts, field in values.items())

    return Family(name, kind, meaning, tuple(labels.split()), tuple(values.values()), samples)


def _within(name: str, label: str, field: str, meaning: str, *others: str) -> Family:
    """Make a family of a field that counts by name; `others` are fields that it tells too."""
    return Family(
        name,
        "counter",
        meaning,
        (label,),
        (field, *others),
        lambda figures: (((value,), count) for value, count in getattr(figures.metrics, field).items()),
    )


def _times(name: str, counts: str, seconds: str, meaning: str) -> Family:
    """Make a histogram of a field that counts by edges and one that has the sum."""

    def distributions(figures: Figures) -> Iterator[tuple[Values, Distribution]]:
        yield (), Distribution(getattr(figures.metrics, counts), getattr(figures.metrics, seconds))

    return Family(name, "histogram", meaning, (), (counts, seconds), distributions=distributions)


def _failed_hooks(figures: Figures) -> Iterator[Sample]:
    for kind, by_hook in (
        ("exception", figures.metrics.handler_failure_count_by_hook),
        ("timeout", figures.metrics.handler_timeout_count_by_hook),
    ):
        yield from (((hook, kind), count) for hook, count in by_hook.items())


def _hook_times(figures: Figures) -> Iterator[tuple[Values, Distribution]]:
    by_hook: dict[str, dict[str, int]] = {}
    for labels, count in figures.metrics.handler_call_count_by_hook_and_seconds.items():
        hook, edge = labels.split(" ")
        by_hook.setdefault(hook, {})[edge] = count
    for hook, counts in by_hook.items():
        yield (hook,), Distribution(counts, figures.metrics.handler_seconds_by_hook[hook])


def _dropped_events(figures: Figures) -> Iterator[Sample]:
    for labels, count in figures.metrics.dropped_event_count_by_sink_and_kind.items():
        sink, kind = labels.split(" ")
        yield (sink, kind), count


def _retries(figures: Figures) -> Iterator[Sample]:
    metrics = figures.metrics
    yield ("unprocessed",), metrics.http2_retries
    yield ("closed",), metrics.retry_count - metrics.http2_retries


def _tls_handshakes(figures: Figures) -> Iterator[Sample]:
    metrics = figures.metrics
    for side, done, resumed in (
        ("client", metrics.tls_client_handshake_count, metrics.tls_client_resumed_count),
        ("upstream", metrics.tls_upstream_handshake_count, metrics.tls_upstream_resumed_count),
    ):
        yield (side, "true"), resumed
        yield (side, "false"), done - resumed


def _tls_failures(figures: Figures) -> Iterator[Sample]:
    metrics = figures.metrics
    for side, by_class in (("client", metrics.tls_client_failures_by_class), ("upstream", metrics.tls_upstream_failures_by_class)):
        yield from (((side, name), count) for name, count in by_class.items())


def _upstream_connections(figures: Figures) -> Iterator[Sample]:
    metrics = figures.metrics
    yield ("idle",), metrics.idle_upstream_connections
    yield ("busy",), metrics.upstream_connections - metrics.idle_upstream_connections


def _pairings(figures: Figures) -> Iterator[Sample]:
    spoken = {"h1": "http1", "h2": "http2"}
    for pairing, count in figures.metrics.flows_by_pairing.items():
        yield (spoken[pairing[:2]], spoken[pairing[2:]]), count


def _websocket_messages(figures: Figures) -> Iterator[Sample]:
    for name, count in figures.metrics.websocket_message_count_by_kind.items():
        direction, _, kind = name.rpartition("_")
        yield (direction, kind), count


def _websocket_violations(figures: Figures) -> Iterator[Sample]:
    for name, count in figures.metrics.websocket_violation_count_by_rule.items():
        side, _, rule = name.partition("_")
        yield (side, rule), count


FAMILIES: dict[str, tuple[Family, ...]] = {
    "Client connections": (
        _of("client_connections_accepted_total", "counter", "total_connections", "Client connections that were accepted."),
        _of(
            "client_connections_active",
            "gauge",
            "active_connections",
            "Client connections now: from acceptance until `on_connection_close` has returned.",
        ),
        _within(
            "connections_rejected_total",
            "reason",
            "rejected_connections_by_reason",
            "Client connections answered 503: `max_concurrent_flows` was reached (`limit`), or the proxy is shutting down (`draining`). "
            "They are not among the accepted ones.",
            "rejected_connection_count",
        ),
        Family(
            "client_bytes_total",
            "counter",
            "Bytes exchanged with clients, without the TLS that ends here; what goes through tunnels is counted as it is.",
            ("direction",),
            ("bytes_from_clients", "bytes_to_clients"),
            lambda figures: iter([(("received",), figures.metrics.bytes_from_clients), (("sent",), figures.metrics.bytes_to_clients)]),
        ),
        _of(
            "unknown_protocols_total",
            "counter",
            "unknown_protocol_count",
            "Connections to intercepted destinations that carried neither TLS nor HTTP: refused or tunnelled "
            "(`interception.unknown_protocol`).",
        ),
    ),
    "Requests": (
        _of("requests_received_total", "counter", "total_flows", "Requests whose head was complete and well-formed."),
        Family(
            "requests_total",
            "counter",
            "Requests that are over, by the pattern that their destination matches (`unlisted`: none; `other`: one beyond 200), protocol, "
            "what came of them, and the class of the status that their client was told.",
            ("pattern", "protocol", "outcome", "status_class"),
            ("ended_flow_count_by_labels", "ended_flow_count_by_outcome"),
            lambda figures: ((tuple(labels.split(" ")), count) for labels, count in figures.metrics.ended_flow_count_by_labels.items()),
        ),
        _times(
            "request_duration_seconds",
            "request_count_by_seconds",
            "request_seconds",
            "Requests that are over, by the time from the request's head to the end of both messages.",
        ),
        _times(
            "first_byte_seconds",
            "first_byte_count_by_seconds",
            "first_byte_seconds",
            "Requests whose final response has begun, of the upstream or of ours, by the time from the request's head to the response's.",
        ),
        _of("requests_active", "gauge", "active_flows", "Requests under way now."),
        _by(
            "request_decisions_total",
            "counter",
            "decision",
            {
                "allow": "allowed_request_count",
                "block": "blocked_request_count",
                "respond": "answered_request_count",
                "abort": "aborted_request_count",
            },
            "Decisions of `on_request`, or of the failure policy in its place, that were applied.",
        ),
        _of(
            "requests_changed_total",
            "counter",
            "changed_request_count",
            "Of the allowed requests, those that `HandlerDecision.forward` changed.",
        ),
        _of(
            "requests_redirected_total",
            "counter",
            "redirected_request_count",
            "Of the allowed requests, those that `HandlerDecision.forward(to=...)` sent elsewhere.",
        ),
        _of("blocks_ignored_total", "counter", "ignored_block_count", "Blocks that were not applied because `intercept_mode` is monitor."),
        _of(
            "decisions_ignored_total",
            "counter",
            "ignored_decision_count",
            "Other decisions of `on_request` that were not applied because `intercept_mode` is monitor.",
        ),
        _of(
            "requests_refused_total",
            "counter",
            "refused_request_count",
            "Requests answered 400, 408, 413, 415 or 431: malformed, late, too large, or not to be inspected.",
        ),
        _of(
            "names_refused_total",
            "counter",
            "refused_name_count",
            "Requests answered 421, and TLS handshakes, that named another destination than their connection's and may not "
            "(`interception.check_names`).",
        ),
        _of(
            "signed_messages_changed_total",
            "counter",
            "changed_signed_message_count",
            "Messages that a decision changed though they are signed; a receiver that checks that may refuse them.",
        ),
        _of(
            "own_bodies_cancelled_total",
            "counter",
            "cancelled_own_body_count",
            "Bodies that `on_request` gave as async iterables and that were closed before their end, because nothing took more of them.",
        ),
        Family(
            "retries_total",
            "counter",
            "Requests sent a second time: the upstream said that it had not processed them (`unprocessed`), or a kept connection turned "
            "out to be `closed`.",
            ("reason",),
            ("retry_count", "http2_retries"),
            _retries,
        ),
    ),
    "Responses": (
        _by(
            "responses_total",
            "counter",
            "end",
            {"relayed": "relayed_response_count", "cut": "cut_response_count"},
            "Responses of upstreams that were relayed to their end, or cut before it.",
        ),
        _by(
            "response_decisions_total",
            "counter",
            "decision",
            {"change": "changed_response_count", "replace": "replaced_response_count", "block": "blocked_response_count"},
            "Decisions of `on_response_head` and `on_response_body`, or of the failure policy in their place, that were applied. A "
            "response that passed is not counted here.",
        ),
        _of(
            "responses_held",
            "gauge",
            "held_responses",
            "Responses now that wait for a decision of the handler, or for their body because `on_response_body` is to decide.",
        ),
        _of(
            "responses_held_bytes",
            "gauge",
            "held_bytes",
            "Bytes of bodies that are kept for that now, and until the client has taken them.",
        ),
        _of("trailers_dropped_total", "counter", "dropped_trailers_count", "Messages, requests too, that lost trailers."),
        _of(
            "interim_responses_dropped_total",
            "counter",
            "dropped_interim_count",
            "Interim responses (1xx) that were not sent on, as the client leaves more than 1 MiB unread.",
        ),
    ),
    "The handler": (
        Family(
            "handler_failures_total",
            "counter",
            "Methods of the handler that raised (`exception`) or overran their deadline (`timeout`).",
            ("hook", "kind"),
            (
                *("handler_failure_count_by_hook", "handler_panic_count"),
                *("handler_timeout_count_by_hook", "handler_timeout_count"),
            ),
            _failed_hooks,
        ),
        Family(
            "handler_seconds",
            "histogram",
            "Calls that are over, by how long they took: until the method had returned, was late, or was cancelled since its "
            "answer was not needed.",
            ("hook",),
            ("handler_call_count_by_hook_and_seconds", "handler_seconds_by_hook"),
            distributions=_hook_times,
        ),
        _of("handler_calls_total", "counter", "handler_call_count", "Calls of methods of the handler."),
        _of(
            "handler_busy_seconds_total",
            "counter",
            "handler_seconds",
            "Time spent inside methods of the handler, without the time for which they were suspended. The loop stands still meanwhile.",
        ),
    ),
    "Streams": (
        _of("stream_chunks_total", "counter", "stream_chunk_count", "Frames of streams, in both directions."),
        _of(
            "stream_chunks_dropped_total",
            "counter",
            "dropped_dispatch_work_count",
            "Frames that `on_stream_chunk` was not shown, because it stayed behind for too long; they were relayed.",
        ),
        _of(
            "stream_framing_errors_total",
            "counter",
            "stream_framing_error_count",
            "Streams, or frames of them, that could not be decoded; they were relayed all the same.",
        ),
        _within(
            "stream_chunks_filtered_total",
            "decision",
            "filtered_chunk_count_by_decision",
            "Frames that `filter_stream_chunk` was asked about, by what came of it.",
        ),
        _times(
            "stream_filter_seconds",
            "filter_count_by_seconds",
            "filter_seconds",
            "Such frames, by how long they waited for `filter_stream_chunk`.",
        ),
    ),
    "Memory": (
        _of(
            "buffered_bytes",
            "gauge",
            "buffered_bytes",
            "Bytes that the proxy holds now because a peer or the handler has not taken them yet; `max_in_flight_bytes` bounds them.",
        ),
        _of("flows_waiting", "gauge", "waiting_flows", "Requests that wait for room there now."),
        _of(
            "flows_paced_total",
            "counter",
            "paced_flow_count",
            "How often the reading of a request was paused because what it keeps for the handler had no room there.",
        ),
        _of(
            "copies_shortened_total",
            "counter",
            "shortened_copy_count",
            "Copies of bodies that ended early, and were marked so, because there was no room in time.",
        ),
    ),
    "Upstreams": (
        Family(
            "upstream_connections",
            "gauge",
            "Connections to upstreams now: `busy` with requests, or kept and `idle`.",
            ("state",),
            ("upstream_connections", "idle_upstream_connections"),
            _upstream_connections,
        ),
        _within(
            "upstream_connect_failures_total",
            "reason",
            "upstream_connect_failures_by_reason",
            "Connections to upstreams that did not come to be: the `name` was not resolved, they `refused`, were `unreachable`, or were "
            "late (`timeout`), the TLS handshake failed or was late (`tls`), each address is `denied` (`upstream.denied_addresses`), it is "
            "this proxy `itself`, or `other`.",
            "upstream_connect_error_count",
            "denied_address_count",
        ),
        _of(
            "upstream_timeouts_total",
            "counter",
            "upstream_timeout_count",
            "Upstreams that let a deadline pass: connecting, TLS handshake, response head, body.",
        ),
        _of("upstream_errors_total", "counter", "upstream_error_count", "Requests answered 502, or cut, because of the upstream."),
        _by(
            "pool_acquires_total",
            "counter",
            "result",
            {"idle": "pool_hit_count", "new": "pool_miss_count", "waited": "pool_wait_count", "stale": "pool_stale_count"},
            "What requests met in the pool: an `idle` connection; a `new` one was dialled; they `waited` because "
            "`connection_pool.max_connections_per_host` was reached; a kept one was `stale`, as it had ended or had spoken unasked. One "
            "request may meet several.",
        ),
        _of(
            "pool_pins_total",
            "counter",
            "pool_pin_count",
            "Connections reserved for the one client that authenticated on them (NTLM, Negotiate).",
        ),
        Family(
            "upstream_requests_total",
            "counter",
            "Requests sent to upstreams, second tries included, by what the client and the upstream speak.",
            ("client", "upstream"),
            ("flows_by_pairing",),
            _pairings,
        ),
        Family(
            "upstream_bytes_total",
            "counter",
            "Bytes exchanged with upstreams, without the TLS that ends here; what goes through tunnels is counted as it is.",
            ("direction",),
            ("bytes_from_upstreams", "bytes_to_upstreams"),
            lambda figures: iter([(("received",), figures.metrics.bytes_from_upstreams), (("sent",), figures.metrics.bytes_to_upstreams)]),
        ),
        _by(
            "dns_lookups_total",
            "counter",
            "result",
            {"asked": "dns_lookup_count", "remembered": "dns_cache_hit_count"},
            "Names of upstreams: the system was `asked` for them, or their addresses were `remembered`.",
        ),
    ),
    "Tunnels and upgrades": (
        _of("tunnels_total", "counter", "tunnel_count", "Tunnels begun, those after a 101 included."),
        _of("upgrades_total", "counter", "upgrade_count", "Connections that switched protocols (101)."),
        _of(
            "websocket_upgrades_total",
            "counter",
            "websocket_upgrade_count",
            "Connections, and streams of HTTP/2, that switched to WebSocket.",
        ),
        _of("websockets_active", "gauge", "websocket_connections", "WebSockets open now, read or not."),
        _of(
            "websocket_bad_handshakes_total",
            "counter",
            "websocket_bad_handshake_count",
            "Requests for a WebSocket that lost their upgrade or were answered 400, and 101s answered 502, because of RFC 6455 section 4.",
        ),
        _of(
            "websocket_offers_removed_total",
            "counter",
            "websocket_removed_offer_count",
            "Extensions other than permessage-deflate that were taken out of requests, where messages are to be read.",
        ),
        _of(
            "websocket_decode_errors_total",
            "counter",
            "websocket_decode_error_count",
            "Directions of WebSockets of which no more messages were shown: one could not be inflated, was far too long, or was cut.",
        ),
        Family(
            "websocket_messages_total",
            "counter",
            "Messages that were read on their way.",
            ("direction", "kind"),
            ("websocket_message_count_by_kind",),
            _websocket_messages,
        ),
        _of(
            "websocket_messages_compressed_total",
            "counter",
            "websocket_compressed_message_count",
            "Those of them that came compressed.",
        ),
        _of(
            "websocket_messages_recoded_total",
            "counter",
            "websocket_recoded_message_count",
            "Messages that were compressed again, because `filter_stream_chunk` had changed or dropped one before them.",
        ),
        _of("websocket_messages_injected_total", "counter", "websocket_injected_message_count", "Messages that `handle.inject` has sent."),
        _within(
            "websocket_closes_total",
            "side",
            "websocket_close_count_by_side",
            "WebSockets that are over and were read, by the side that sent the first Close.",
        ),
        Family(
            "websocket_violations_total",
            "counter",
            "Times that a peer of a WebSocket that is read broke a rule of RFC 6455.",
            ("side", "rule"),
            ("websocket_violation_count_by_rule", "websocket_violation_count"),
            _websocket_violations,
        ),
    ),
    "TLS": (
        Family(
            "tls_handshakes_total",
            "counter",
            "Completed handshakes.",
            ("side", "resumed"),
            ("tls_client_handshake_count", "tls_client_resumed_count", "tls_upstream_handshake_count", "tls_upstream_resumed_count"),
            _tls_handshakes,
        ),
        Family(
            "tls_handshake_failures_total",
            "counter",
            "Failed handshakes, by failure class.",
            ("side", "class"),
            (
                *("tls_client_failure_count", "tls_client_failures_by_class"),
                *("tls_upstream_failure_count", "tls_upstream_failures_by_class"),
            ),
            _tls_failures,
        ),
        _of(
            "tls_clients_left_total",
            "counter",
            "tls_client_abandoned_count",
            "Clients that left after the handshake without a request: those that pin certificates, and browsers that connect ahead.",
        ),
        _of(
            "tls_certificate_refusals_total",
            "counter",
            "tls_client_refusal_count",
            "Refusals of our certificate that are learnt from: handshakes that failed so, and departures right after the handshake.",
        ),
        _of(
            "tls_bypasses_opened_total",
            "counter",
            "tls_bypass_opened_count",
            "Times that such clients made us tunnel a destination for them (`tls.learn_bypass`).",
        ),
        _of(
            "tls_bypassed_connections_total",
            "counter",
            "tls_bypassed_connection_count",
            "Connections that were tunnelled for that reason.",
        ),
        _of("tls_bypasses_active", "gauge", "tls_bypasses", "Destinations tunnelled for a process for that reason now."),
        _of("leaves_minted_total", "counter", "leaf_minted_count", "Certificates made for names that clients asked for."),
        Family(
            "ca_not_after_timestamp_seconds",
            "gauge",
            "When the CA's certificate expires, in seconds since 1970.",
            samples=lambda figures: iter([((), figures.ca_not_after)]),
        ),
    ),
    "HTTP/2": (
        _by(
            "http2_connections",
            "gauge",
            "side",
            {"client": "http2_client_connections", "upstream": "http2_upstream_connections"},
            "Connections that speak HTTP/2 now.",
        ),
        _of("http2_streams_active", "gauge", "http2_streams", "Streams open now, those of clients and those to upstreams."),
        _of("http2_streams_opened_total", "counter", "http2_streams_total", "Streams opened, by clients and to upstreams."),
        _of(
            "http2_streams_refused_total",
            "counter",
            "http2_refused_streams",
            "Refused streams of clients: over `http2_max_concurrent_streams`, or while 1 MiB is unread or open ones hold 2 MiB of heads.",
        ),
        _of(
            "http2_streams_stalled_total",
            "counter",
            "http2_stalled_streams",
            "Streams reset because their peer opened its window too slowly (`http2.stall_timeout_ms`).",
        ),
        _within(
            "http2_resets_received_total",
            "code",
            "http2_resets_received_by_code",
            "Streams that a peer ended with RST_STREAM, by its code.",
        ),
        _within(
            "http2_resets_sent_total",
            "code",
            "http2_resets_sent_by_code",
            "Streams that we ended with RST_STREAM, or refused, by its code.",
        ),
        _of(
            "http2_goaways_received_total",
            "counter",
            "http2_goaways_received",
            "Times that an upstream said that it takes no new streams on a connection.",
        ),
        _within(
            "http2_goaways_sent_total",
            "reason",
            "http2_goaways_sent_by_reason",
            "Connections on which we said that we take no new streams: they were to end (`drain`), no stream was open (`idle`), a limit "
            "was reached (`calm_` and its name), or the peer broke the protocol (the name of the code).",
        ),
        _of(
            "http2_connections_dead_total",
            "counter",
            "http2_dead_connections",
            "Upstream connections given up because a PING had no answer (`http2.ping_timeout_ms`).",
        ),
        _of(
            "http2_glitches_total",
            "counter",
            "http2_glitches",
            "Frames that are allowed and odd, or that broke a rule and cost their stream.",
        ),
        _of(
            "http2_heads_oversized_total",
            "counter",
            "http2_oversized_heads",
            "Field lists over `http2_max_header_list_size`, answered 431 or, from an upstream, reset; and responses beyond 2 MiB of heads.",
        ),
        _of(
            "http2_requests_misdirected_total",
            "counter",
            "http2_misdirected",
            "Requests answered 421 because of the name that they asked for; part of `names_refused_total`.",
        ),
        _of(
            "http2_window_growths_total",
            "counter",
            "http2_window_growths",
            "Times that the window of a stream was made larger, because it held up a fast peer.",
        ),
    ),
    "Credentials": (
        Family(
            "credentials_put_in_total",
            "counter",
            "Requests into which the value of a credential was put, once for each credential.",
            (),
            ("credentials_put_in_by_placeholder",),
            lambda figures: iter([((), sum(figures.metrics.credentials_put_in_by_placeholder.values()))]),
        ),
        _of(
            "credential_values_redacted_total",
            "counter",
            "redacted_value_count",
            "Values of credentials that were turned back into their placeholders in bodies of responses and in messages of WebSockets.",
        ),
        _of(
            "placeholders_blocked_total",
            "counter",
            "blocked_placeholder_count",
            "Requests answered 403, or cut, and messages of WebSockets, which closed, because the placeholder or the value of a credential "
            "was in them and may not go there.",
        ),
        _of(
            "credentials_unavailable_total",
            "counter",
            "unavailable_credential_count",
            "Requests answered 502 because the value of a credential could not be had, or cannot stand where its placeholder stood.",
        ),
    ),
    "Processes of clients": (
        _by(
            "process_lookups_total",
            "counter",
            "result",
            {
                "known": "process_cache_identity_hit_count",
                "described": "process_cache_miss_count",
                "none": "process_attribution_failure_count",
                "timeout": "process_attribution_timeout_count",
            },
            "Look-ups of the process behind a connection: it was `known` already, or had to be `described`; `none` was found; or the "
            "answer was not waited for any longer (`timeout`), and may count once more when it comes.",
        ),
        _of(
            "process_cache_evictions_total",
            "counter",
            "process_cache_eviction_count",
            "Known processes forgotten because the cache was full.",
        ),
        _of(
            "process_pid_reuse_total",
            "counter",
            "process_pid_reuse_detected_count",
            "Known pids that had become another process.",
        ),
    ),
    "Event sinks": (
        Family(
            "events_dropped_total",
            "counter",
            "Events and updates of flows that a sink was not given, because its queue was full, or it had failed or hung. `kind` is the "
            "kind of event, or `flow_update`.",
            ("sink", "kind"),
            ("dropped_event_count_by_sink_and_kind",),
            _dropped_events,
        ),
        _within("sink_errors_total", "sink", "event_sink_failure_count_by_sink", "Exceptions that sinks raised."),
        Family(
            "sink_lag_seconds",
            "gauge",
            "How long what a sink has yet to take has waited.",
            ("sink",),
            ("event_sink_lag_seconds_by_sink",),
            lambda figures: (((name,), lag) for name, lag in figures.metrics.event_sink_lag_seconds_by_sink.items()),
        ),
        _of(
            "sinks_disabled",
            "gauge",
            "disabled_event_sinks",
            "Sinks that are given nothing more, because they failed three times in a row.",
        ),
        _of(
            "events_illegal_total",
            "counter",
            "illegal_event_count",
            "Events that came where their grammar has none; looked for while a sink wants all kinds of it. Please report any.",
        ),
    ),
    "The proxy": (
        _within("config_reloads_total", "result", "config_reloads_by_result", "Reloads: `applied`, or `refused` with nothing changed."),
    ),
}


def all_families() -> Iterator[Family]:
    """Yield each family, in the order in which they are told."""
    for families in FAMILIES.values():
        yield from families
