"""What the keys of HTTP/2 are to the data plane."""

import asyncio
from typing import Any

from soth_mitm._dataplane.http.counters import Counters
from soth_mitm._dataplane.http.hooks import HookCounters
from soth_mitm._dataplane.http.settings import Settings
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm.config import MitmConfig
from soth_mitm.proxy.calls import HandlerCalls, HandlerReports
from soth_mitm.proxy.deadlines import Deadlines
from soth_mitm.proxy.settings import make_settings

LIMITS = (
    *("max_streams", "list_size", "initial_window", "max_window", "reset_burst", "resets_per_second", "glitch_burst"),
    *("glitches_per_second", "max_queued_replies", "head_seconds", "stall_seconds"),
)


def raise_it(error: BaseException) -> None:
    raise error


def settings_of(**changed: Any) -> Settings:
    """Return the settings of a configuration in which these sections or keys are changed."""

    async def make() -> Settings:
        loop = asyncio.get_running_loop()
        config = MitmConfig.from_mapping(changed)
        deadlines, reports = Deadlines(loop), HandlerReports(raise_it)
        calls = HandlerCalls(object(), config, loop, deadlines, HookCounters(), reports)
        return make_settings(config, Arena(), Counters(), calls.hooks, deadlines, reports)

    return asyncio.run(make())


def test_each_limit_has_its_key() -> None:
    settings = settings_of(
        http2_max_header_list_size=2048,
        http2_max_concurrent_streams=3,
        http2={
            "max_streams_per_upstream": 4,
            "initial_window_bytes": 20_000,
            "max_window_bytes": 30_000,
            "reset_burst": 5,
            "resets_per_second": 6,
            "glitch_burst": 7,
            "glitches_per_second": 8,
            "max_queued_replies": 9,
            "stall_timeout_ms": 10_000,
        },
        timeouts={"client_head_ms": 11_000},
        upstream={"h2_header_stage_timeout_ms": 12_000},
    )
    common = (2048, 20_000, 30_000, 5, 6, 7, 8, 9)
    assert [getattr(settings.client_http2, name) for name in LIMITS] == [3, *common, 11, 10]
    assert [getattr(settings.upstream_http2, name) for name in LIMITS] == [4, *common, 12, 10]


def test_each_deadline_has_its_key() -> None:
    settings = settings_of(
        http2={"settings_timeout_ms": 1000, "ping_timeout_ms": 2000, "stall_timeout_ms": 12_000, "keepalive_ms": 4000},
        upstream={"h2_header_stage_timeout_ms": 5000, "h2_body_idle_timeout_ms": 6000, "h2_response_overflow_mode": "strict_fail"},
    )
    queues = (settings.http2_settings, settings.http2_ping, settings.http2_keepalive)
    assert [queue and queue.seconds for queue in queues] == [1, 2, 4]
    assert (settings.http2_response_head.seconds, settings.http2_body_idle.seconds, settings.http2_strict_overflow) == (5, 6, True)
    # looked for more often than a stream may stand still
    assert settings.http2_stall.seconds == 3


def test_no_ping_without_a_reason_and_no_strict_overflow_unless_a_key_says_so() -> None:
    settings = settings_of()
    assert settings.http2_keepalive is None and not settings.http2_strict_overflow
    assert settings.client_http2.max_streams == settings.upstream_http2.max_streams == 100
