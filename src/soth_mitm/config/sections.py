"""The sections of `MitmConfig`: every key below a heading, with its default and its meaning.

A new key is one field here. Its `Key` is what `soth-mitm config --defaults`, docs/configuration.md and every error message say about it.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Struct, field

from soth_mitm.address_ranges import parse_range
from soth_mitm.config.schema import Key
from soth_mitm.destinations import DestinationPattern, parse_redirect

KIB, MIB = 1024, 1024 * 1024
# Where nothing else sets an upper bound: what counters and timers of 32 bits hold, and a size that no machine has.
MAX_COUNT = 2**31 - 1
MAX_BYTES = 2**40

STREAM_FRAMERS = ("sse", "ndjson", "json_seq", "eventstream", "grpc", "grpc_web", "grpc_web_text")


def milliseconds(doc: str, *, minimum: int = 1, unset: str = "", example: int | None = None) -> Key:
    """Describe a key that holds a time."""
    return Key(doc, minimum, MAX_COUNT, unset=unset, example=example)


def count(doc: str, *, minimum: int = 1, unset: str = "", example: int | None = None) -> Key:
    """Describe a key that holds a number of things."""
    return Key(doc, minimum, MAX_COUNT, unset=unset, example=example)


def _look_at_ciphers(text: str) -> None:
    # what OpenSSL makes of it is known where TLS is: tls/ciphers.py
    if not text or not text.isascii() or not text.isprintable():
        raise ValueError("is no OpenSSL cipher string, such as `DEFAULT:@SECLEVEL=1`")


class InterceptionConfig(Struct, kw_only=True):
    """Which connections are intercepted, tunnelled or blocked."""

    destinations: Annotated[
        list[str],
        Key(
            "Destinations to intercept, at least one: `host:port`, `[v6]:port`; `*` in the host is any text, `*` as the port any port.",
            check=DestinationPattern.parse,
            example=["api.example.com:443", "*.example.org:*"],
        ),
    ] = field(default_factory=list)
    blocked: Annotated[
        list[str],
        Key(
            "Destinations, as patterns, that are blocked with 403, whatever else is said of them. Looked at first: for the target of a "
            "CONNECT, the URL of a forwarded request, and the names in SNI and `Host`. No handler is asked, and no such name is resolved.",
            check=DestinationPattern.parse,
            example=["*.telemetry.example:*", "169.254.169.254:*"],
        ),
    ] = field(default_factory=list)
    check_names: Annotated[
        Literal["strict", "off"],
        Key(
            "Inside an intercepted connection `Host` and SNI name the target, or a name to which a connection would be let through as "
            "well. Else the request is answered 421; behind a handshake that asks for such a name each request is answered 403. Inside "
            "a tunnel SNI names the target, or a name that would be tunnelled as well; else it gets the TLS alert unrecognized_name. A "
            "handler's `on_connect` is asked about each such name. `off` lets every name pass that is not in `blocked`."
        ),
    ] = "strict"
    explain_blocks: Annotated[
        bool,
        Key(
            "Answer a blocked CONNECT with 200, and each request inside it, in TLS with our certificate or without, with the 403 and its "
            "reason: for browsers, which do not show the answer to a CONNECT."
        ),
    ] = False
    passthrough_unlisted: Annotated[bool, Key("Tunnel every other destination untouched; `false` blocks it with 403.")] = True
    must_intercept: Annotated[
        list[str],
        Key(
            "Destinations, as patterns, that are never tunnelled once they are intercepted: not for a client that refuses our certificate "
            "(`tls.learn_bypass`), not as an unknown protocol, and not by `should_intercept_tls`, which then blocks with 403.",
            check=DestinationPattern.parse,
            example=["*.example.com:443"],
        ),
    ] = field(default_factory=list)
    unknown_protocol: Annotated[
        Literal["block", "tunnel"],
        Key(
            "What happens to a CONNECT to an intercepted destination that carries what can be neither TLS nor HTTP. `tunnel` relays it "
            "unread; a client that is silent is then sent what the server says, and its own first bytes are examined when they come."
        ),
    ] = "block"
    strip_alt_svc: Annotated[
        bool, Key("Remove `Alt-Svc` from responses of intercepted origins, so that clients do not leave for HTTP/3.")
    ] = False


class ProcessAttributionConfig(Struct, kw_only=True):
    """Which local process a connection belongs to."""

    enabled: Annotated[bool, Key("Look up the process behind each connection before the handler hears of it.")] = True
    lookup_timeout_ms: Annotated[int, milliseconds("How long a look-up may take before the process counts as unknown.")] = 1000
    cache_capacity: Annotated[int, count("How many processes are remembered.")] = 4096
    cache_ttl_ms: Annotated[
        int | None, milliseconds("How long a process is remembered.", unset="until the process ends or the cache is full", example=60_000)
    ] = None


class TlsConfig(Struct, kw_only=True):
    """Our CA, the certificates that clients see, and what is learnt from clients that refuse them."""

    ca_cert_path: Annotated[
        Path | str | None,
        Key(
            "The CA's certificate, PEM; made on the first start.",
            unset="`soth-mitm-ca.pem` in the user's state directory",
            example="/etc/soth-mitm/ca.pem",
            frozen=True,
        ),
    ] = None
    ca_key_path: Annotated[
        Path | str | None,
        Key(
            "The CA's private key, PEM, readable by its owner only.",
            unset="`soth-mitm-ca-key.pem` in the user's state directory",
            example="/etc/soth-mitm/ca-key.pem",
            frozen=True,
        ),
    ] = None
    min_version: Annotated[Literal["tls1.2", "tls1.3"], Key("The lowest TLS version, towards clients and upstreams.")] = "tls1.2"
    capture_fingerprint: Annotated[bool, Key("Compute JA3 and JA4 of each ClientHello.")] = True
    leaf_validity_days: Annotated[int, Key("How long a certificate that we mint is valid.", 1, 197)] = 197
    leaf_cache_capacity: Annotated[
        int, count("How many minted certificates are kept, some 25 kB each; the least recently used goes first.")
    ] = 1024
    learn_bypass: Annotated[
        bool,
        Key(
            "Tunnel a destination, unread, for a program that keeps refusing our certificate there, because it pins another, instead of "
            "breaking it: a client that refuses on purpose gets past the handler. A program "
            "without a known process counts by its address if it is on another machine, and not at all on this one."
        ),
    ] = False
    bypass_after_failures: Annotated[
        int, Key("How many handshakes, one after another and with no request between them, must be refused for that.", 2, 100)
    ] = 3
    bypass_window_ms: Annotated[int, milliseconds("The time within which they must be refused.")] = 300_000
    bypass_ttl_ms: Annotated[int, milliseconds("How long the destination is tunnelled for that program before it is tried again.")] = (
        900_000
    )


class UpstreamConfig(Struct, kw_only=True):
    """Connections to the servers that clients asked for."""

    timeout_ms: Annotated[int, milliseconds("From the end of a request to the head of its response; later is a 504.")] = 30_000
    connect_timeout_ms: Annotated[int, milliseconds("For name resolution and the TCP connection; later is a 504.")] = 10_000
    retry_on_failure: Annotated[
        bool,
        Key(
            "Connect a second time if the first attempt fails, before the client is told. If a kept connection closes before a byte of the "
            "answer, send the request once more where that is safe."
        ),
    ] = True
    retry_delay_ms: Annotated[int, milliseconds("How long to wait before that second attempt.", minimum=0)] = 200
    dns_cache_ms: Annotated[
        int,
        Key(
            "How long the addresses of a name are remembered; 0 asks each time. Forgotten at once if none of them can be connected to.",
            0,
            3_600_000,
        ),
    ] = 30_000
    verify_upstream_tls: Annotated[
        bool, Key("Verify the upstream's certificate; `false` trusts any server that answers and is for test networks only.")
    ] = True
    ciphers: Annotated[
        str | None,
        Key(
            "OpenSSL cipher string: the TLS 1.2 suites that upstreams are offered, and the security level. `DEFAULT:@SECLEVEL=1` adds "
            "older suites (RSA key exchange, CBC with SHA-1) and shorter keys. Suites without authentication or encryption are never "
            "offered; those of TLS 1.3 stay as they are.",
            check=_look_at_ciphers,
            unset="suites with forward secrecy and without SHA-1, security level 2",
            example="DEFAULT:@SECLEVEL=1",
        ),
    ] = None
    insecure_destinations: Annotated[
        list[str],
        Key(
            "Destinations, as patterns, where no certificate is verified: any server that answers is trusted. For test servers; warned of "
            "at the start.",
            check=DestinationPattern.parse,
            example=["staging.example.test:443"],
        ),
    ] = field(default_factory=list)
    ca_bundle_path: Annotated[
        Path | str | None,
        Key(
            "PEM file of CAs that upstreams may be signed by, besides those of the system.",
            unset="only the CAs of the system",
            example="/etc/soth-mitm/internal-cas.pem",
        ),
    ] = None
    connect_to: Annotated[
        list[str],
        Key(
            "Connect elsewhere for a destination: `PATTERN=HOST:PORT`. The name that is asked for and verified stays the target's. "
            "`PATTERN=http://HOST:PORT` sends requests to a plain HTTP server, whatever the client speaks, and `https://` to a TLS one; "
            "without a scheme that of the request stays. A tunnel carries the client's bytes as they are.",
            check=parse_redirect,
            example=["api.example.com:443=http://127.0.0.1:8000"],
        ),
    ] = field(default_factory=list)
    denied_addresses: Annotated[
        list[str],
        Key(
            "Addresses that are never connected to, whatever name leads there: `metadata` (where clouds hand out credentials), "
            "`link_local`, `loopback`, `private`, an address, or a network. The client is answered 403. `metadata` is denied as well "
            "whenever `interception.passthrough_unlisted` is false.",
            check=parse_range,
            example=["metadata", "link_local", "10.0.0.0/8"],
        ),
    ] = field(default_factory=list)
    allowed_addresses: Annotated[
        list[str],
        Key(
            "Exceptions from `denied_addresses`, written alike. The most specific entry decides; of two equally specific ones this one.",
            check=parse_range,
            example=["10.1.2.0/24"],
        ),
    ] = field(default_factory=list)
    client_cert_path: Annotated[
        dict[str, Path | str],
        Key(
            "Certificate chain, PEM, that we show to the upstreams of a destination pattern that ask for one.",
            check=DestinationPattern.parse,
            example={"api.example.com:443": "/etc/soth-mitm/client.pem"},
        ),
    ] = field(default_factory=dict)
    client_key_path: Annotated[
        dict[str, Path | str],
        Key(
            "The private key of that certificate, PEM, below the same destination pattern.",
            check=DestinationPattern.parse,
            example={"api.example.com:443": "/etc/soth-mitm/client-key.pem"},
        ),
    ] = field(default_factory=dict)
    h2_header_stage_timeout_ms: Annotated[
        int, milliseconds("HTTP/2: from the end of a request to the headers of its response; later is a 504.")
    ] = 30_000
    h2_body_idle_timeout_ms: Annotated[int, milliseconds("HTTP/2: how long a response body may stand still before it is cut.")] = 120_000
    h2_response_overflow_mode: Annotated[
        Literal["truncate_continue", "strict_fail"],
        Key("HTTP/2 response over `body.max_size_bytes`: cut the handler's copy and relay on, or fail the stream."),
    ] = "truncate_continue"


class Http2Config(Struct, kw_only=True):
    """HTTP/2: what a connection carries and what a peer may do before it is closed."""

    max_streams_per_upstream: Annotated[
        int,
        count("Requests at once on one upstream connection, or fewer if the upstream says so; further ones take another connection."),
    ] = 100
    for_http1_clients: Annotated[
        bool, Key("Speak HTTP/2 to upstreams that offer it for clients that speak only HTTP/1 as well, which saves connections.")
    ] = False
    misdirected: Annotated[
        Literal["refuse", "allow"],
        Key(
            "A request whose `:authority` is not the name of its connection. Browsers send one where a certificate is good for several "
            "names. `refuse` answers 421, upon which they open a connection of its own; `allow` lets it pass where "
            "`interception.check_names` does."
        ),
    ] = "refuse"
    initial_window_bytes: Annotated[
        int,
        Key(
            "How much of a body a peer may send on a stream before any of it went on. At most 16384 on a connection that begins while half "
            "of `max_in_flight_bytes` is in use.",
            16 * KIB,
            16 * MIB,
        ),
    ] = 65_535
    max_window_bytes: Annotated[int, Key("What that grows to on a stream whose body goes on as fast as it comes.", 16 * KIB, MAX_COUNT)] = (
        8 * MIB
    )
    reset_burst: Annotated[int, count("Streams that a peer may end early, or make us end, one after another.")] = 1000
    resets_per_second: Annotated[int, count("How many of those are forgiven each second.")] = 100
    glitch_burst: Annotated[
        int,
        count(
            "Other odd things that a peer may do: empty frames, unknown frames, needless updates, broken messages. From three quarters on "
            "no new stream is taken."
        ),
    ] = 10_000
    glitches_per_second: Annotated[int, count("How many of those are forgiven each second.")] = 330
    max_queued_replies: Annotated[int, count("Answers to PING and SETTINGS that may wait for a peer which does not read.")] = 1000
    stall_timeout_ms: Annotated[
        int,
        milliseconds(
            "How long a stream may wait for its peer's window while less than 4 KiB of it leave; then the stream is reset (CANCEL). If "
            "the window of the whole connection is shut, the connection ends."
        ),
    ] = 60_000
    settings_timeout_ms: Annotated[int, milliseconds("For a peer's first SETTINGS, and for the acknowledgement of ours.")] = 10_000
    ping_timeout_ms: Annotated[int, milliseconds("For the answer to a PING of ours; without one the connection is lost.")] = 10_000
    keepalive_ms: Annotated[
        int,
        milliseconds(
            "How often a connection that is silent is sent a PING; 0 is never. Servers may punish it: gRPC allows one every five minutes.",
            minimum=0,
        ),
    ] = 0


class ConnectionPoolConfig(Struct, kw_only=True):
    """Upstream connections that are kept for the next request."""

    max_connections_per_host: Annotated[int, count("Connections to one origin at once; further requests wait their turn.")] = 32
    idle_timeout_ms: Annotated[int, milliseconds("How long an unused connection is kept.")] = 60_000
    read_ahead_bytes: Annotated[
        int,
        Key(
            "How much of a response is read ahead of a client that reads slowly, to free its upstream connection for others, as long as "
            "less than a quarter of `max_in_flight_bytes` is in use. A response with more left keeps "
            "its connection until the client has read.",
            0,
            MAX_BYTES,
        ),
    ] = MIB
    unsafe_reuse_idle_ms: Annotated[
        int,
        milliseconds(
            "A request that cannot be sent twice (POST, PATCH, a body that streams) goes over a new connection rather than over one that "
            "was unused for longer: its upstream may be closing it at that moment, and the request could only fail.",
            minimum=0,
        ),
    ] = 1000
    max_idle_per_host: Annotated[int, count("Unused connections kept per origin; 0 closes each after its request.", minimum=0)] = 8
    max_hosts: Annotated[
        int, count("Origins for which unused connections are kept; those of the origin asked for longest ago are closed first.")
    ] = 512


class WebSocketConfig(Struct, kw_only=True):
    """WebSockets whose messages are read, which is where the handler has an `on_stream_chunk` or a `filter_stream_chunk`."""

    on_violation: Annotated[
        Literal["close", "relay"],
        Key(
            "A peer that breaks RFC 6455, or sends text that is not UTF-8: `close` sends both sides a Close that says so, and relays "
            "nothing more of either; `relay` goes on with that direction unread. Both are counted. `relay` is refused where "
            "`filter_stream_chunk` decides about messages of WebSockets, and where there are credentials."
        ),
    ] = "close"
    close_timeout_ms: Annotated[
        int, milliseconds("How long both sides may take to end behind a Close of ours, or behind the Closes of both.")
    ] = 5_000
    idle_timeout_ms: Annotated[
        int,
        milliseconds("How long both sides may be silent; then both get a Close with 1001. 0: `timeouts.tunnel_idle_ms`.", minimum=0),
    ] = 0
    recompress: Annotated[
        bool,
        Key(
            "Where `filter_stream_chunk` has changed or dropped a compressed message: compress it, and those behind it until both sides "
            "remember the same octets again. `false` sends them as they are, which costs less time and more octets."
        ),
    ] = True


class BodyConfig(Struct, kw_only=True):
    """How much of a body is collected for the handler."""

    max_size_bytes: Annotated[
        int, Key("The longest body that is collected, and the longest that is decoded, for the handler.", 1, MAX_BYTES)
    ] = 32 * MIB
    buffer_request_bodies: Annotated[
        bool, Key("Collect a request's body for the handler; `false` decides on the head, streams the body and keeps no copy of it.")
    ] = True
    buffer_timeout_ms: Annotated[
        int, milliseconds("A request body that is not complete by then is decided on as it is, and the rest streamed.")
    ] = 10_000
    overflow: Annotated[
        Literal["stream", "reject"],
        Key("A collected request body over `max_size_bytes`: decide on its first part and stream the rest, or answer 413."),
    ] = "stream"
    incomplete: Annotated[
        Literal["show", "refuse"],
        Key(
            "Where `on_request` cannot see the whole body (`request.body_problem`): `show` asks all the same; `refuse` answers 413 "
            "if it is too long, 408 if it is late, 415 if it cannot be decoded or is a conversation (gRPC, WebSocket, any upgrade)."
        ),
    ] = "show"


def parse_stream_type(text: str) -> tuple[str, str]:
    """Read `MEDIA/TYPE=FRAMER`; `ValueError` says what is wrong with it."""
    media_type, equals, framer = (part.strip().lower() for part in text.partition("="))
    if not equals or framer not in STREAM_FRAMERS:
        raise ValueError(f"does not end in `=` and one of {', '.join(STREAM_FRAMERS)}")
    if not re.fullmatch(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+", media_type):
        raise ValueError("does not begin with a media type without parameters; write `application/vnd.example+lines=ndjson`")
    return media_type, framer


class StreamsConfig(Struct, kw_only=True):
    """Which bodies are streams, so that their frames reach `on_stream_chunk`."""

    types: Annotated[
        list[str],
        Key(
            f"Further media types that are streams: `MEDIA/TYPE=FRAMER`; framers are {', '.join(f'`{name}`' for name in STREAM_FRAMERS)}.",
            check=parse_stream_type,
            example=["application/vnd.example+lines=ndjson"],
        ),
    ] = field(default_factory=list)


class HandlerConfig(Struct, kw_only=True):
    """What the handler may cost, and what happens when it fails."""

    request_timeout_ms: Annotated[int, milliseconds("Deadline of `should_intercept_tls`, `on_tls_failure` and `on_request`.")] = 15_000
    connect_timeout_ms: Annotated[
        int, milliseconds("Deadline of `on_connect`, which may ask a person; the client waits that long for the answer to its CONNECT.")
    ] = 60_000
    response_timeout_ms: Annotated[int, milliseconds("Deadline of every other method.")] = 15_000
    recover_from_panics: Annotated[
        bool, Key("Count an exception of the handler and go on by `failure_policy`; `false` aborts the flow and logs the traceback.")
    ] = True
    failure_policy: Annotated[
        Literal["allow", "block"],
        Key(
            "A decision that raises or is late: answer 502 (a CONNECT: 403), or let the request go (a CONNECT: tunnel). In monitor mode it "
            "always goes."
        ),
    ] = "block"
    slow_ms: Annotated[int, milliseconds("A method that holds the event loop for longer is named in a warning, at most once a minute.")] = (
        200
    )


class FlowRuntimeConfig(Struct, kw_only=True):
    """The queue between a flow and its handler. The defaults follow from other keys; few need to set them."""

    dispatch_queue_capacity: Annotated[
        int | None,
        count(
            "Stream chunks that may wait for the handler per flow, and flows that may wait for it per connection.",
            unset="connections per host times destinations, within 128..1024",
            example=256,
        ),
    ] = None
    closed_flow_lru_capacity: Annotated[
        int | None,
        count(
            "Closed flows that are remembered, so that late work is not taken for a new flow.",
            unset="nothing reads it",
            example=8192,
        ),
    ] = None
    stale_flow_ttl_ms: Annotated[
        int | None,
        milliseconds(
            "When a flow without a connection is ended: after this long without any event.",
            unset="nothing reads it",
            example=180_000,
        ),
    ] = None
    stale_reap_max_batch: Annotated[
        int | None,
        count("Stale flows that are ended at once.", unset="nothing reads it", example=64),
    ] = None
    dispatch_queue_send_timeout_ms: Annotated[
        int | None,
        milliseconds(
            "How long a full queue paces its flow before chunks are dropped.", unset="`handler.response_timeout_ms`", example=1000
        ),
    ] = None
    dispatch_close_join_timeout_ms: Annotated[
        int | None,
        milliseconds("How long the end of a flow waits for its queue to empty.", unset="nothing reads it", example=5000),
    ] = None


class TimeoutsConfig(Struct, kw_only=True):
    """How long we wait for peers where no other section says so."""

    client_head_ms: Annotated[int, milliseconds("For a whole request head, from its first byte; later is a 408.")] = 30_000
    client_idle_ms: Annotated[
        int, milliseconds("How long a client connection may be open without a request, before the first or between two.")
    ] = 120_000
    half_closed_client_ms: Annotated[
        int,
        milliseconds(
            "How long a client that has ended its direction (a FIN, behind a close_notify in TLS) waits for the next byte of its answer "
            "before its request is cancelled: most have left. One that reset its connection is cancelled at once.",
            minimum=0,
        ),
    ] = 1000
    client_first_bytes_ms: Annotated[
        int,
        milliseconds(
            "How long a client may be silent inside a CONNECT to an intercepted destination; then it is closed, and nothing is dialled. "
            "Where `interception.unknown_protocol` is `tunnel`, the upstream is dialled then and may speak; the client has as long again."
        ),
    ] = 10_000
    client_tls_handshake_ms: Annotated[int, milliseconds("For the TLS handshake with a client, its ClientHello included.")] = 10_000
    upstream_tls_handshake_ms: Annotated[int, milliseconds("For the TLS handshake with an upstream; later is a 504.")] = 10_000
    body_idle_ms: Annotated[int, milliseconds("How long an HTTP/1 body may stand still, in either direction, before it is cut.")] = 300_000
    tunnel_idle_ms: Annotated[
        int, milliseconds("How long a tunnel, WebSocket or other upgraded connection may be silent in both directions.")
    ] = 600_000
    drain_ms: Annotated[
        int,
        milliseconds(
            "How long a shutdown lets open flows finish; tunnels and upgraded connections without traffic are closed after a second of it.",
            minimum=0,
        ),
    ] = 8000
