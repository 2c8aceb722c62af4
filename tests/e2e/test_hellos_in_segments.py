"""ClientHellos of real programs, in segments of any size, are answered; what is no hello gets an alert in the middle of it."""

from __future__ import annotations

import pytest

from soth_mitm.tls.client_hello import ClientHello, parse_client_hello
from support.origin import Origin
from support.running import ProxyFactory
from support.source import ROOT

HELLOS = {path.stem: bytes.fromhex(path.read_text("ascii")) for path in sorted((ROOT / "tests" / "corpus" / "hellos").glob("*.hex"))}


@pytest.mark.parametrize("size", [3, 1400])
@pytest.mark.parametrize("name", HELLOS)
def test_is_answered_with_a_server_hello(proxy: ProxyFactory, origin: Origin, name: str, size: int) -> None:
    hello = parse_client_hello(HELLOS[name])
    assert isinstance(hello, ClientHello)
    running = proxy()
    with running.tunnel(origin.port) as client:
        for at in range(0, len(HELLOS[name]), size):
            client.send(HELLOS[name][at : at + size])
        answer = client.read_exactly(6)
        assert (answer[0], answer[5]) == (22, 2)
    running.handler.wait("on_connection_close")
    ((_, error),) = running.handler.of("on_tls_failure")
    assert (error.reason, error.certificate_refused) == ("eof_or_reset", True)
