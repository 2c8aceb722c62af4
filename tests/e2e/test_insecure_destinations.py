"""Verification of upstreams that is switched off for some destinations, and for no other."""

from __future__ import annotations

import pytest

from support.certs import TestCA
from support.origin import Origin
from support.running import HOST, ProxyFactory


def test_only_what_is_listed_is_not_verified(proxy: ProxyFactory, caplog: pytest.LogCaptureFixture) -> None:
    """Two servers that nobody vouches for; a wrong name in the certificate is one more reason."""
    unknown = TestCA("Nobody's Root")
    with Origin(unknown.server_context("other.test"), host=HOST) as listed, Origin(unknown.server_context(HOST), host=HOST) as other:
        running = proxy(**{"upstream.insecure_destinations": [f"{HOST}:{listed.port}"], "upstream.retry_on_failure": False})
        assert f"upstream.insecure_destinations: no certificate is verified of {HOST}:{listed.port}" in caplog.text
        with running.secured(listed.port) as client:
            assert client.request("/bytes/3", f"{HOST}:{listed.port}").status == 200
        with running.secured(other.port) as client:
            assert client.request("/bytes/3", f"{HOST}:{other.port}").status == 502
        assert other.requests == []
