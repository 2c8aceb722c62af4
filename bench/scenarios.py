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


@dataclass(frozen=True)
class Scenario:
    """One kind of traffic; ``connections`` requests are in flight all the time."""

    name: str
    about: str
    route: Route
    response: int
    connections: int
    post: int = 0
    new_connection: bool = False
    resume: bool = False

    def load_arguments(self) -> list[str]:
        """Return the options of ``load`` that describe this traffic, without where to and how long."""
        arguments = ["--path", f"/{self.response}", "--expect", str(self.response), "--connections", str(self.connections)]
        arguments += ["--warmup", str(4 * self.connections)]
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
)

BY_NAME = {scenario.name: scenario for scenario in ALL}
