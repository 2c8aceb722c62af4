"""What the proxy counts: names, meanings, and the consistent snapshot that `handle.metrics()` returns."""

import msgspec

# In the order of the data plane
FLOW_OUTCOMES = (
    *("answered", "blocked", "responded", "aborted", "refused", "upstream_error", "upstream_timeout"),
    *("cut_by_client", "cut_by_upstream", "cut_by_proxy", "tunnelled"),
)
FLOW_PROTOCOLS = ("http1", "http2", "sse", "streamable_http", "grpc", "websocket", "tunnel")
STATUS_CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx", "other")


class ProxyMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """All counters at one moment. Counts since start unless the text says "now"."""

    total_connections: int = 0
    """Accepted client connections."""
    active_connections: int = 0
    """Client connections now: from acceptance until `on_connection_close` has returned."""
    handler_panic_count: int = 0
    """Exceptions that handler methods raised."""
    handler_timeout_count: int = 0
    """Handler methods that overran their deadline."""
    handler_failure_count_by_hook: dict[str, int] = {}
    """Of the exceptions, by method; those of methods that were called have entries, here and in the next ones."""
    handler_timeout_count_by_hook: dict[str, int] = {}
    """Of the overruns, by method."""
    handler_call_count_by_hook_and_seconds: dict[str, int] = {}
    """Calls that are over, by method and, with a blank between, by how long they took in seconds: until it had returned, was late, or was
    cancelled because its answer was not needed; `longer`: than the last of these times."""
    handler_seconds_by_hook: dict[str, float] = {}
    """The sums of these times."""
    upstream_connect_error_count: int = 0
    """Dials that ended in an error: name, connection, TLS."""
    upstream_connect_failures_by_reason: dict[str, int] = {}
    """The same by reason, and with those that `denied_address_count` counts: `name` (it was not resolved), `refused`, `unreachable`,
    `timeout`, `tls` (the handshake failed or was late), `denied`, `itself` (it is this proxy), `other`."""
    denied_address_count: int = 0
    """Dials that were refused because each address of the upstream is denied (`upstream.denied_addresses`)."""
    upstream_timeout_count: int = 0
    """Upstreams that let a deadline pass: connecting, handshake, response head, response body."""
    process_attribution_failure_count: int = 0
    """Look-ups that found no process."""
    process_attribution_timeout_count: int = 0
    """Look-ups that took longer than `process_attribution.lookup_timeout_ms`."""
    process_cache_identity_hit_count: int = 0
    """Look-ups whose process was known already."""
    process_cache_miss_count: int = 0
    """Look-ups whose process had to be described."""
    process_cache_eviction_count: int = 0
    """Known processes forgotten because the cache was full."""
    process_pid_reuse_detected_count: int = 0
    """Known pids that had become another process."""
    dropped_dispatch_work_count: int = 0
    """Stream chunks dropped because their flow's handler stayed behind for too long."""

    total_flows: int = 0
    """Requests whose head was complete and well-formed."""
    active_flows: int = 0
    """Requests under way now."""
    ended_flow_count_by_outcome: dict[str, int] = {}
    """Requests that are over, by what came of them; every outcome has an entry, and their sum is `total_flows` less `active_flows`.
    `answered`: the client has the whole response. `blocked`: by the policy, the handler, or the failure policy in its place, whether or
    not the client has heard of it. `responded`, `aborted`: by the handler. `refused`: the request was malformed, late, too large, or named
    another destination, or a credential could not be had. `upstream_error`, `upstream_timeout`: because of the upstream, before its
    response or, where it was late, within it. `cut_by_client`, `cut_by_upstream`, `cut_by_proxy`: before all of the response was there;
    `cut_by_proxy` counts a handler that failed there or had the flow closed, and what a shutdown cut. `tunnelled`: to another protocol."""
    ended_flow_count_by_labels: dict[str, int] = {}
    """The same by the pattern that the destination matches (`unlisted`: none; `other`: one beyond 200), protocol, outcome and class of the
    status that the client was told, with a blank between them; what was not met has no entry."""
    request_count_by_seconds: dict[str, int] = {}
    """The same by how long they took, from the request's head to the end of both messages, in seconds; `longer`: than the last of them."""
    request_seconds: float = 0.0
    """The sum of these times."""
    first_byte_count_by_seconds: dict[str, int] = {}
    """Requests whose final response has begun, of the upstream or of ours, by the time from the request's head to the response's."""
    first_byte_seconds: float = 0.0
    """The sum of these times."""
    allowed_request_count: int = 0
    """Requests that `on_request` allowed."""
    blocked_request_count: int = 0
    """Requests that `on_request`, or the failure policy in its place, blocked."""
    ignored_block_count: int = 0
    """Blocks that were not applied because `intercept_mode` is monitor."""
    answered_request_count: int = 0
    """Requests that `on_request` answered with `HandlerDecision.respond`."""
    aborted_request_count: int = 0
    """Requests that `on_request` ended without an answer, with `HandlerDecision.abort`."""
    ignored_decision_count: int = 0
    """Other decisions of `on_request` that were not applied because `intercept_mode` is monitor."""
    changed_request_count: int = 0
    """Of the requests that `on_request` allowed, those that `HandlerDecision.forward` changed."""
    redirected_request_count: int = 0
    """Of the requests that `on_request` allowed, those that `HandlerDecision.forward(to=...)` sent elsewhere."""
    changed_signed_message_count: int = 0
    """Messages that a decision changed though they are signed (Signature, Signature-Input, or Authorization of AWS); a receiver that
    checks that may refuse them. A signature that the decision itself sets or removes does not count."""
    cancelled_own_body_count: int = 0
    """Bodies that `on_request` gave as async iterables and that were closed before their end, because nothing took more of them."""
    credentials_put_in_by_placeholder: dict[str, int] = {}
    """Requests, and messages of WebSockets, into which the value of a credential was put, by its placeholder; one that was never put in has
    no entry."""
    redacted_value_count: int = 0
    """Values of credentials that were turned back into their placeholders in bodies of responses and in messages of WebSockets."""
    blocked_placeholder_count: int = 0
    """Requests answered 403, or cut, and messages of WebSockets, which closed, because the placeholder or the value of a credential was
    in them and may not go there."""
    unavailable_credential_count: int = 0
    """Requests answered 502 because the value of a credential could not be had, or cannot stand where its placeholder stood."""
    refused_request_count: int = 0
    """Requests answered 400, 408, 413, 415 or 431 because they were malformed, late, too large, or not to be inspected."""
    refused_name_count: int = 0
    """Requests answered 421, and TLS handshakes, that named another destination than their connection's and may not (`check_names`)."""
    changed_response_count: int = 0
    """Responses that left with another head, by `ResponseDecision.change`."""
    replaced_response_count: int = 0
    """Responses whose body the handler replaced, with `ResponseDecision.replace`."""
    blocked_response_count: int = 0
    """Responses that `on_response_head` or `on_response_body`, or the failure policy in their place, blocked."""
    held_responses: int = 0
    """Responses now that wait for a decision of the handler, or for their body because `on_response_body` is to decide."""
    held_bytes: int = 0
    """Bytes of bodies that are kept for that now, and until the client has taken them."""
    relayed_response_count: int = 0
    """Responses relayed to their end."""
    cut_response_count: int = 0
    """Responses that ended before their body did."""
    upstream_error_count: int = 0
    """Requests answered 502, or cut, because of the upstream."""
    retry_count: int = 0
    """Requests sent a second time, because an idle connection turned out to be closed or the upstream had not processed them."""
    upgrade_count: int = 0
    """Connections that switched protocols (101)."""
    websocket_upgrade_count: int = 0
    """Those, and streams of HTTP/2, that switched to WebSocket."""
    websocket_bad_handshake_count: int = 0
    """Requests for a WebSocket that lost their upgrade or were answered 400, and 101s answered 502, because of RFC 6455 section 4."""
    websocket_removed_offer_count: int = 0
    """Extensions other than permessage-deflate that were taken out of requests, where `on_stream_chunk` is to read the messages."""
    websocket_decode_error_count: int = 0
    """Directions of WebSockets of which no more messages were shown: one could not be inflated, was far too long, or was cut."""
    websocket_connections: int = 0
    """WebSockets open now, read or not."""
    websocket_message_count_by_kind: dict[str, int] = {}
    """Messages that were read on their way, by direction and kind: `to_upstream_text`, `to_client_binary` and so on."""
    websocket_compressed_message_count: int = 0
    """Those of them that came compressed."""
    websocket_recoded_message_count: int = 0
    """Messages that were compressed again, because `filter_stream_chunk` had changed or dropped one before them."""
    websocket_injected_message_count: int = 0
    """Messages that `handle.inject` has sent."""
    websocket_close_count_by_side: dict[str, int] = {}
    """WebSockets that are over and were read, by the side that sent the first Close: `client`, `upstream`, `proxy`, or `nobody`."""
    websocket_violation_count_by_rule: dict[str, int] = {}
    """The same violations as below by side and rule: `client_unmasked`, `upstream_text_not_utf8` and so on."""
    websocket_violation_count: int = 0
    """Times that a peer of a WebSocket that is read broke RFC 6455; `websocket.on_violation` says what came of it."""
    tunnel_count: int = 0
    """Tunnels begun, those after a 101 included."""
    dropped_trailers_count: int = 0
    """Messages that lost trailers: all, as HTTP/1 has no room behind content with a length; or fields that may not be trailers, or that the
    handler sets or removes in the head."""
    dropped_interim_count: int = 0
    """Interim responses (1xx) that were not sent on, as the client leaves more than 1 MiB unread."""
    stream_chunk_count: int = 0
    """Frames of streams, in both directions."""
    stream_framing_error_count: int = 0
    """Streams, or frames of them, that could not be decoded; they were relayed all the same."""
    filtered_chunk_count_by_decision: dict[str, int] = {}
    """Frames that `filter_stream_chunk` was asked about, by what came of it: `pass`, `drop`, `replace`, `end`."""
    filter_seconds: float = 0.0
    """Time that these frames waited for `filter_stream_chunk`."""
    filter_count_by_seconds: dict[str, int] = {}
    """The same frames by how long they waited: up to 0.0001, 0.001, 0.01, 0.1, 1 or 10 seconds, or `longer`."""
    rejected_connection_count: int = 0
    """Connections answered 503 because `max_concurrent_flows` was reached, or while the proxy is shutting down."""
    rejected_connections_by_reason: dict[str, int] = {}
    """The same by reason: `limit`, `draining`."""
    config_reloads_by_result: dict[str, int] = {}
    """Calls of `reload`: `applied`, or `refused` with nothing changed."""
    tls_client_handshake_count: int = 0
    """Completed handshakes with clients."""
    tls_client_resumed_count: int = 0
    """Those of them that resumed a session."""
    tls_client_failure_count: int = 0
    """Failed handshakes with clients."""
    tls_client_failures_by_class: dict[str, int] = {}
    """The same by `TlsFailedError.reason`; every class has an entry."""
    tls_client_abandoned_count: int = 0
    """Clients that left after the handshake without a request: those that pin certificates, and browsers that connect ahead of need."""
    tls_client_refusal_count: int = 0
    """Refusals that are learnt from: failures with `certificate_refused`, and departures right after the handshake."""
    tls_bypass_opened_count: int = 0
    """Times that such clients made us tunnel a destination for them (`tls.learn_bypass`)."""
    tls_bypassed_connection_count: int = 0
    """Connections that were tunnelled for that reason."""
    tls_bypasses: int = 0
    """Destinations tunnelled for a process for that reason now; `handle.tls_bypasses()` lists them."""
    unknown_protocol_count: int = 0
    """Connections to intercepted destinations that carried neither TLS nor HTTP: refused or tunnelled (`interception.unknown_protocol`)."""
    tls_upstream_handshake_count: int = 0
    """Completed handshakes with upstreams."""
    tls_upstream_resumed_count: int = 0
    """Those of them that resumed a session."""
    tls_upstream_failure_count: int = 0
    """Failed handshakes with upstreams."""
    tls_upstream_failures_by_class: dict[str, int] = {}
    """The same by `TlsFailedError.reason`; every class has an entry."""
    leaf_minted_count: int = 0
    """Certificates made for names that clients asked for."""
    pool_hit_count: int = 0
    """Requests that found an idle upstream connection."""
    pool_miss_count: int = 0
    """Upstream connections dialled."""
    pool_wait_count: int = 0
    """Requests that waited because `connection_pool.max_connections_per_host` was reached."""
    pool_stale_count: int = 0
    """Kept upstream connections that were about to be used again, and had ended or had spoken unasked."""
    pool_pin_count: int = 0
    """Upstream connections reserved for the one client that authenticated on them (NTLM, Negotiate)."""
    dns_lookup_count: int = 0
    """Names that the system was asked for."""
    dns_cache_hit_count: int = 0
    """Dials to a name whose addresses were remembered."""
    upstream_connections: int = 0
    """Upstream connections now."""
    idle_upstream_connections: int = 0
    """Those of them without a request."""
    bytes_from_clients: int = 0
    """Request bytes received, TLS excluded."""
    bytes_to_clients: int = 0
    """Response bytes sent, TLS excluded."""
    bytes_from_upstreams: int = 0
    """Response bytes received, TLS excluded."""
    bytes_to_upstreams: int = 0
    """Request bytes sent, TLS excluded."""
    buffered_bytes: int = 0
    """Bytes that the proxy holds now because a peer or the handler has not taken them yet; `max_in_flight_bytes` bounds them."""
    paced_flow_count: int = 0
    """How often a flow's reading was paused because what it keeps for the handler had no room in `max_in_flight_bytes`."""
    waiting_flows: int = 0
    """Flows that wait for that room now."""
    shortened_copy_count: int = 0
    """Copies of bodies that ended early, and were marked so, because there was no room within `dispatch_queue_send_timeout_ms`."""
    flows_by_pairing: dict[str, int] = {}
    """Requests sent to upstreams, second tries included, by what the client and the upstream speak: `h1h1`, `h1h2`, `h2h1`, `h2h2`."""
    http2_client_connections: int = 0
    """Client connections that speak HTTP/2 now."""
    http2_upstream_connections: int = 0
    """Upstream connections that speak HTTP/2 now."""
    http2_goaways_received: int = 0
    """Times that an upstream said that it takes no new streams on a connection."""
    http2_dead_connections: int = 0
    """Upstream connections given up because a PING had no answer (`http2.ping_timeout_ms`)."""
    http2_retries: int = 0
    """Requests sent a second time because the upstream said that it had not processed them; part of `retry_count`."""
    http2_streams: int = 0
    """Streams open now, those of clients and those to upstreams."""
    http2_streams_total: int = 0
    """Streams opened, by clients and to upstreams."""
    http2_refused_streams: int = 0
    """Refused streams of clients: over `http2_max_concurrent_streams`, or while 1 MiB is unread or open ones hold 2 MiB of heads."""
    http2_resets_received_by_code: dict[str, int] = {}
    """Streams that a peer ended with RST_STREAM, by its code; every code has an entry, and `other` has those without a name."""
    http2_resets_sent_by_code: dict[str, int] = {}
    """Streams that we ended with RST_STREAM, or refused, by its code."""
    http2_goaways_sent_by_reason: dict[str, int] = {}
    """Connections on which we said that we take no new streams, by reason. `drain`: they were to end. `idle`: no stream was open. The
    names of codes: the peer broke the protocol. `calm_` and a limit's name: it was reached. Of `calm_replies` the peer is not told."""
    http2_glitches: int = 0
    """Frames of HTTP/2 that are allowed and odd, or that broke a rule and cost their stream."""
    http2_oversized_heads: int = 0
    """Field lists over `http2_max_header_list_size`, answered 431 or, from an upstream, reset; and responses beyond 2 MiB of heads."""
    http2_misdirected: int = 0
    """Requests on HTTP/2 answered 421 because of the name that they asked for; part of `refused_name_count`."""
    http2_stalled_streams: int = 0
    """Streams reset because their peer opened its window too slowly (`http2.stall_timeout_ms`)."""
    http2_window_growths: int = 0
    """Times that the window of a stream was made larger, because it held up a fast peer."""
    dropped_event_count_by_sink_and_kind: dict[str, int] = {}
    """Events that a sink was not given because its queue was full, or it had failed or hung, by its name and, with a blank between, the
    kind of event, or `flow_update`; what was not dropped has no entry."""
    event_sink_failure_count_by_sink: dict[str, int] = {}
    """Exceptions that event sinks raised, by name; every sink has an entry, here and in the next one."""
    event_sink_lag_seconds_by_sink: dict[str, float] = {}
    """How long what a sink has yet to take has waited now."""
    disabled_event_sinks: int = 0
    """Sinks that are given nothing more now, because they failed three times in a row."""
    illegal_event_count: int = 0
    """Events that came where the grammar of docs/events.md has none; looked for while a sink wants all kinds of it."""
    handler_call_count: int = 0
    """Calls of handler methods."""
    handler_seconds: float = 0.0
    """Time spent inside handler methods, without the time for which they were suspended."""

    def as_dict(self) -> dict[str, int | float]:
        """Return the counters by name; `tls_client_failures_by_class.timeout` and so on for those by class."""
        counters: dict[str, int | float] = {}
        for name, value in msgspec.structs.asdict(self).items():
            counters |= {f"{name}.{key}": count for key, count in value.items()} if isinstance(value, dict) else {name: value}
        return counters
