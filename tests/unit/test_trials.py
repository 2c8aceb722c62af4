"""Who counts as the same client, which departures count as refusals, and what a change of the configuration does."""

from __future__ import annotations

import ssl
import uuid
from types import SimpleNamespace
from typing import Any, cast

import pytest

from soth_mitm._dataplane.endpoint import Endpoint
from soth_mitm.config import MitmConfig
from soth_mitm.connection import ConnectionMeta, ProcessInfo, SocketFamily, TcpV4, TcpV6, UnixDomain
from soth_mitm.policy import Policy
from soth_mitm.proxy.learning import PROMPT_SECONDS, Learning
from soth_mitm.proxy.tally import Tally
from soth_mitm.tls.bypass import TlsBypasses
from soth_mitm.tls.failures import refuses_certificate

LOCAL = TcpV4(("127.0.0.1", 8080), ("127.0.0.1", 50000))
REMOTE = TcpV4(("10.0.0.1", 8080), ("10.0.0.2", 50000))
AGENT = ProcessInfo(7, exe_name="agent", exe_path="/usr/bin/agent")


class Client:
    """Handshakes with a learning that looks at a clock of the test's."""

    def __init__(self, **keys: Any) -> None:
        self.seconds = 0.0
        self.tally = Tally()
        config, policy = self.configured(**keys)
        self.learning = Learning(config, policy, self.tally, TlsBypasses(clock=lambda: self.seconds))

    @staticmethod
    def configured(**keys: Any) -> tuple[MitmConfig, Policy]:
        config = MitmConfig()
        config.interception.destinations.append("*:*")
        config.interception.must_intercept.extend(keys.pop("must_intercept", ()))
        for key, value in {"bypass_after_failures": 2, **keys}.items():
            setattr(config.tls, key, value)
        return config, Policy(config)

    def endpoint(self, **facts: Any) -> Any:
        engine = SimpleNamespace(session_reused=facts.get("resumed", False))
        return SimpleNamespace(tls=SimpleNamespace(ssl_object=engine), bytes_in=100, bytes_out=50)

    def meta(self, info: ProcessInfo | None = AGENT, family: SocketFamily = LOCAL) -> ConnectionMeta:
        return ConnectionMeta(uuid.uuid4(), family, info, target=("api.test", 443))

    def refuse(self, info: ProcessInfo | None = AGENT, family: SocketFamily = LOCAL, sni: str | None = None) -> None:
        trial = self.learning.begin(self.meta(info, family), sni)
        assert not trial.is_tunnelled
        trial.failed(self.endpoint(), ConnectionResetError())

    def is_tunnelled(self, info: ProcessInfo | None = AGENT, family: SocketFamily = LOCAL, sni: str | None = None) -> bool:
        return self.learning.begin(self.meta(info, family), sni).is_tunnelled

    def depart(self, after: float, *, bytes_in: int = 0, bytes_out: int = 0, resumed: bool = False, by_us: bool = False) -> None:
        endpoint = self.endpoint(resumed=resumed)
        trial = self.learning.begin(self.meta(), None)
        trial.secured(cast(Endpoint, endpoint))
        self.seconds += after
        endpoint.bytes_in += bytes_in
        endpoint.bytes_out += bytes_out
        trial.ended(by_us=by_us)


class TestIdentity:
    @pytest.mark.parametrize(
        ("info", "same", "other"),
        [
            (AGENT, ProcessInfo(8, exe_name="agent", exe_path="/usr/bin/agent"), ProcessInfo(7, exe_name="agent", exe_path="/tmp/agent")),
            (
                ProcessInfo(7, exe_name="sync", exe_path="/usr/bin/python3"),
                ProcessInfo(8, exe_name="sync", exe_path="/usr/bin/python3", parent_pid=1),
                ProcessInfo(7, exe_name="backup", exe_path="/usr/bin/python3"),
            ),
            (ProcessInfo(7, exe_name="agent"), ProcessInfo(7, exe_name="agent"), ProcessInfo(8, exe_name="agent")),
            (ProcessInfo(7), ProcessInfo(7), ProcessInfo(8)),
        ],
        ids=["executable", "script", "name only", "pid only"],
    )
    def test_programs(self, info: ProcessInfo, same: ProcessInfo, other: ProcessInfo) -> None:
        client = Client()
        client.refuse(info)
        client.refuse(same)
        assert client.is_tunnelled(info) and client.is_tunnelled(same)
        assert not client.is_tunnelled(other)

    def test_the_script_is_named(self) -> None:
        client = Client()
        for _ in range(2):
            client.refuse(ProcessInfo(7, exe_name="sync", exe_path="/usr/bin/python3"))
        assert [record.process for record in client.learning.bypasses()] == ["/usr/bin/python3 (sync)"]

    def test_a_client_elsewhere_is_its_address(self) -> None:
        client = Client()
        client.refuse(None, REMOTE)
        client.refuse(None, TcpV4(REMOTE.local, ("10.0.0.2", 60000)))
        assert client.is_tunnelled(None, REMOTE)
        assert not client.is_tunnelled(None, TcpV4(REMOTE.local, ("10.0.0.3", 50000)))
        assert [record.process for record in client.learning.bypasses()] == ["10.0.0.2"]

    @pytest.mark.parametrize(
        "family",
        [
            LOCAL,
            TcpV4(("10.0.0.1", 1), ("10.0.0.1", 2)),
            TcpV4(("127.0.0.1", 1), ("127.0.0.9", 2)),
            TcpV6(("::1", 1), ("::1", 2)),
            UnixDomain("/s"),
        ],
        ids=["loopback", "own address", "another loopback address", "IPv6", "Unix socket"],
    )
    def test_an_unknown_program_of_this_machine_is_nobody(self, family: SocketFamily) -> None:
        client = Client()
        for _ in range(5):
            client.refuse(None, family)
        assert not client.is_tunnelled(None, family)
        assert client.learning.bypasses() == []
        assert client.tally.client_refusals == 5

    @pytest.mark.parametrize("sni", ["a..b", "127.1", "1:2:3"])
    def test_a_name_that_is_none_is_not_learnt(self, sni: str) -> None:
        client = Client()
        for _ in range(5):
            client.refuse(sni=sni)
        assert not client.is_tunnelled(sni=sni)


class TestDepartures:
    @pytest.mark.parametrize(
        ("facts", "refused"),
        [
            ({"after": 0.0}, True),
            ({"after": PROMPT_SECONDS}, True),
            ({"after": PROMPT_SECONDS + 0.1}, False),
            ({"after": 0.0, "bytes_in": 1}, False),
            ({"after": 0.0, "bytes_out": 1}, False),
            ({"after": 0.0, "resumed": True}, False),
            ({"after": 0.0, "by_us": True}, False),
        ],
        ids=["at once", "soon", "later", "after a request", "after an answer of ours", "resumed", "by us"],
    )
    def test_after_the_handshake(self, facts: dict[str, Any], refused: bool) -> None:
        client = Client()
        for _ in range(2):
            client.depart(**facts)
        assert client.tally.client_refusals == 2 * refused
        assert client.is_tunnelled() is refused

    @pytest.mark.parametrize("facts", ["no engine yet", "resumed"])
    def test_before_our_certificate_was_seen(self, facts: str) -> None:
        client = Client()
        endpoint = client.endpoint(resumed=facts == "resumed")
        if facts == "no engine yet":
            endpoint.tls = None
        for _ in range(3):
            client.learning.begin(client.meta(), None).failed(endpoint, ConnectionResetError())
        assert client.tally.client_refusals == 0

    def test_nothing_is_kept_of_connections_that_ended(self) -> None:
        client = Client()
        client.depart(5.0, bytes_in=10)
        client.depart(0.0)
        assert client.learning._carrying == {}


class TestConfiguration:
    def test_it_is_the_latest_one_that_counts(self) -> None:
        client = Client(bypass_after_failures=3)
        client.refuse()
        trial = client.learning.begin(client.meta(), None)
        client.learning.configure(*Client.configured(must_intercept=["api.test:443"]))
        trial.failed(client.endpoint(), ConnectionResetError())
        assert client.learning.bypasses() == []
        client.learning.configure(*Client.configured())
        client.refuse()
        assert not client.is_tunnelled()
        client.refuse()
        assert client.is_tunnelled()

    def test_window_and_ttl(self) -> None:
        client = Client(bypass_window_ms=2000, bypass_ttl_ms=3000)
        client.refuse()
        client.seconds += 2.1
        client.refuse()
        assert not client.is_tunnelled()
        client.seconds += 1.9
        client.refuse()
        client.seconds += 2.9
        assert client.is_tunnelled()
        client.seconds += 0.1
        assert not client.is_tunnelled()


@pytest.mark.parametrize(
    ("reason", "refused"),
    [
        ("TLSV1_ALERT_UNKNOWN_CA", True),
        ("SSLV3_ALERT_BAD_CERTIFICATE", True),
        ("SSLV3_ALERT_CERTIFICATE_UNKNOWN", True),
        ("TLSV1_ALERT_ACCESS_DENIED", True),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", False),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", False),
        ("TLSV1_ALERT_USER_CANCELLED", False),
        ("NO_SHARED_CIPHER", False),
        (None, False),
    ],
)
def test_alerts(reason: str | None, refused: bool) -> None:
    error = ssl.SSLError()
    error.reason = reason  # type: ignore[assignment]
    assert refuses_certificate(error) is refused
    assert not refuses_certificate(OSError())
