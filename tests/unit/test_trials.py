"""Who counts as the same client, which departures count as refusals, and what a change of the configuration does."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from soth_mitm.config import MitmConfig
from soth_mitm.connection import ConnectionMeta, ProcessInfo, SocketFamily, TcpV4, TcpV6, UnixDomain
from soth_mitm.policy import Policy
from soth_mitm.proxy.counters import ConnectionCounters
from soth_mitm.proxy.learning import PROMPT_SECONDS, Learning, Trial
from soth_mitm.tls.bypass import TlsBypasses

LOCAL = TcpV4(("127.0.0.1", 8080), ("127.0.0.1", 50000))
REMOTE = TcpV4(("10.0.0.1", 8080), ("10.0.0.2", 50000))
AGENT = ProcessInfo(7, exe_name="agent", exe_path="/usr/bin/agent")


class Client:
    """Handshakes with a learning that looks at a clock of the test's."""

    def __init__(self, **keys: Any) -> None:
        self.seconds = 0.0
        self.counters = ConnectionCounters()
        config, policy = self.configured(**keys)
        self.learning = Learning(config, policy, self.counters, TlsBypasses(clock=lambda: self.seconds))

    @staticmethod
    def configured(**keys: Any) -> tuple[MitmConfig, Policy]:
        config = MitmConfig()
        config.interception.destinations.append("*:*")
        config.interception.must_intercept.extend(keys.pop("must_intercept", ()))
        for key, value in {"learn_bypass": True, "bypass_after_failures": 2, **keys}.items():
            setattr(config.tls, key, value)
        return config, Policy(config)

    def endpoint(self, *, resumed: bool = False) -> Any:
        return SimpleNamespace(tls=SimpleNamespace(ssl_object=SimpleNamespace(session_reused=resumed)), bytes_in=100)

    def begin(self, info: ProcessInfo | None = AGENT, family: SocketFamily = LOCAL, name: str = "api.test") -> Trial | None:
        return self.learning.begin(ConnectionMeta(uuid.uuid4(), family, info, target=("api.test", 443)), name)

    def trial(self, info: ProcessInfo | None = AGENT, family: SocketFamily = LOCAL, name: str = "api.test") -> Trial:
        trial = self.begin(info, family, name)
        assert trial is not None, "tunnelled"
        return trial

    def refuse(self, info: ProcessInfo | None = AGENT, family: SocketFamily = LOCAL, name: str = "api.test") -> None:
        self.trial(info, family, name).refused(self.endpoint(), silently=False)

    def is_tunnelled(self, info: ProcessInfo | None = AGENT, family: SocketFamily = LOCAL, name: str = "api.test") -> bool:
        return self.begin(info, family, name) is None

    def depart(self, after: float, *, resumed: bool = False) -> None:
        endpoint = self.endpoint(resumed=resumed)
        trial = self.trial()
        trial.secured(endpoint)
        self.seconds += after
        trial.ended()
        trial.left(endpoint)

    def succeed(self) -> None:
        endpoint = self.endpoint()
        trial = self.trial()
        trial.secured(endpoint)
        endpoint.bytes_in += 1
        trial.ended()


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
        assert client.counters.client_refusals == 5


class TestDepartures:
    @pytest.mark.parametrize(
        ("after", "resumed", "refused"),
        [(0.0, False, True), (PROMPT_SECONDS, False, True), (PROMPT_SECONDS + 0.1, False, False), (0.0, True, False)],
        ids=["at once", "soon", "later", "resumed"],
    )
    def test_after_the_handshake(self, after: float, resumed: bool, refused: bool) -> None:
        client = Client()
        for _ in range(2):
            client.depart(after, resumed=resumed)
        assert client.counters.client_refusals == 2 * refused
        assert client.is_tunnelled() is refused

    def test_inside_the_handshake_of_a_resumed_session(self) -> None:
        client = Client()
        for _ in range(3):
            client.trial().refused(client.endpoint(resumed=True), silently=True)
        assert client.counters.client_refusals == 0

    def test_a_request_in_between(self) -> None:
        client = Client()
        for _ in range(3):
            client.refuse()
            client.succeed()
        assert not client.is_tunnelled()

    def test_a_request_on_a_connection_that_is_still_open(self) -> None:
        client = Client()
        endpoint = client.endpoint()
        open_one = client.trial()
        open_one.secured(endpoint)
        client.refuse()
        endpoint.bytes_in += 1
        client.refuse()
        client.depart(0.0)
        assert not client.is_tunnelled()
        open_one.ended()
        client.refuse()
        client.refuse()
        assert client.is_tunnelled()

    def test_nothing_is_kept_of_connections_that_ended(self) -> None:
        client = Client()
        client.succeed()
        client.depart(0.0)
        assert client.learning._trials == {}

    def test_nothing_is_learnt_while_the_proxy_shuts_down(self) -> None:
        client = Client()
        client.refuse()
        client.learning.end()
        client.refuse()
        client.depart(0.0)
        assert (client.counters.client_refusals, client.learning.bypasses()) == (1, [])


class TestConfiguration:
    def test_it_is_the_latest_one_that_counts(self) -> None:
        client = Client(bypass_after_failures=3)
        client.refuse()
        trial = client.trial()
        client.learning.configure(*Client.configured(must_intercept=["api.test:443"]))
        trial.refused(client.endpoint(), silently=False)
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
