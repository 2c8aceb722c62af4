"""A key that does nothing is named when the proxy starts, and not again."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from soth_mitm import MitmConfig, MitmProxyBuilder


@pytest.mark.anyio
async def test_named_once(make_config: Callable[..., MitmConfig], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="soth_mitm")
    keys = {"via_header": True, "unix_socket_mode": "0660"}
    async with MitmProxyBuilder(make_config(**keys)).build() as handle:
        await handle.reload(make_config(**keys, max_concurrent_flows=7))
        await asyncio.sleep(0)
    assert sorted(caplog.messages) == [
        "unix_socket_mode has no effect: unix_socket_path is not set",
        "via_header has no effect: this build does not have what it is about",
    ]
