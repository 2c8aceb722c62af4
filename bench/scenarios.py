"""What is measured: each scenario is one kind of traffic over one route through the proxies."""

import enum
from dataclasses import dataclass

KIB = 1024


class Route(enum.Enum):
    """What a proxy does with the bytes."""

    INTERCEPT = "intercept"
    """TLS ends at the proxy and begins anew towards the origin; HTTP is parsed."""
    TUNNEL = "tunnel"
    """TLS goes from the client to the origin; the proxy only relays."""
    HTTP2 = "HTTP/2"
    """As INTERCEPT, with HTTP/2 on both sides."""

    @property
    def speaks_http2(self) -> bool:
        """Whether client and origin speak HTTP/2; otherwise both speak HTTP/1.1."""
        return self is Route.HTTP2


@dataclass(frozen=True)
class Scenario:
    """One kind of traffic; ``connections`` times ``streams`` requests are in flight all the time."""

    name: str
    about: str
    route: Route
    response: int
    connections: int
    post: int = 0
    new_connection: bool = False
    resume: bool = False
    streams: int = 1
    """Requests in flight on each connection; more than one needs HTTP/2."""

    def load_arguments(self) -> list[str]:
        """Return the options of ``load`` that describe this traffic, without where to and how long."""
        arguments = ["--path", f"/{self.response}", "--expect", str(self.response), "--connections", str(self.connections)]
        arguments += ["--warmup", str(4 * self.connections * self.streams)]
        if self.route.speaks_http2:
            arguments += ["--streams", str(self.streams), "--tls", "1.3"]
        if self.post:
            arguments += ["--post", str(self.post)]
        if self.new_connection:
            arguments += ["--per-connection", "1"]
        if self.resume:
            arguments += ["--resume"]
        return arguments


ALL = (
    Scenario("keepalive-1k", "GET, 1 KiB answers, 32 kept connections", Route.INTERCEPT, KIB, 32),
    Scenario("keepalive-64k", "GET, 64 KiB answers, 32 kept connections", Route.INTERCEPT, 64 * KIB, 32),
    Scenario("post-4k", "POST of 4 KiB, 1 KiB answers, 32 kept connections", Route.INTERCEPT, KIB, 32, post=4 * KIB),
    Scenario("new-connection-1k", "GET, 1 KiB, a new connection and full handshake each", Route.INTERCEPT, KIB, 16, new_connection=True),
    Scenario(
        "resumed-connection-1k", "as before, the client's TLS session resumed", Route.INTERCEPT, KIB, 16, new_connection=True, resume=True
    ),
    Scenario("tunnel-1k", "GET, 1 KiB answers through a tunnel, 32 kept connections", Route.TUNNEL, KIB, 32),
    Scenario("tunnel-64k", "GET, 64 KiB answers through a tunnel, 32 kept connections", Route.TUNNEL, 64 * KIB, 32),
    Scenario("tunnel-10m", "GET, 10 MiB answers through a tunnel, 4 kept connections", Route.TUNNEL, 10 * KIB * KIB, 4),
    Scenario("h2-1k-10x10", "HTTP/2, GET, 1 KiB answers, 10 connections × 10 streams", Route.HTTP2, KIB, 10, streams=10),
    Scenario("h2-1k-24x1", "HTTP/2, GET, 1 KiB answers, 24 connections × 1 stream", Route.HTTP2, KIB, 24),
    Scenario("h2-1k-1x100", "HTTP/2, GET, 1 KiB answers, 1 connection × 100 streams", Route.HTTP2, KIB, 1, streams=100),
    Scenario("h2-64k-10x10", "HTTP/2, GET, 64 KiB answers, 10 connections × 10 streams", Route.HTTP2, 64 * KIB, 10, streams=10),
    Scenario(
        "h2-post-4k-10x10",
        "HTTP/2, POST of 4 KiB, 1 KiB answers, 10 connections × 10 streams",
        Route.HTTP2,
        KIB,
        10,
        post=4 * KIB,
        streams=10,
    ),
    Scenario("h2-100m", "HTTP/2, GET, 100 MiB answers, 1 connection × 1 stream", Route.HTTP2, 100 * KIB * KIB, 1),
)

BY_NAME = {scenario.name: scenario for scenario in ALL}
