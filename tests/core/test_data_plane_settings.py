"""Settings: the data plane reads them unchecked, so each of them is required."""

import asyncio
from collections.abc import Iterator

import pytest

from soth_mitm._dataplane.http.counters import Counters
from soth_mitm._dataplane.http.hooks import HookCounters, Hooks
from soth_mitm._dataplane.http.settings import Settings
from soth_mitm._dataplane.memory.buffer import Arena
from support.data_plane import DEADLINES, FLAGS, MADE, NUMBERS, OBJECTS, every_setting, make_settings

NAMES = [*NUMBERS, *FLAGS, *OBJECTS, *DEADLINES, *MADE]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_every_setting_is_kept(loop: asyncio.AbstractEventLoop) -> None:
    settings = make_settings(loop, head_limit=1234, enforce=True)
    assert (settings.head_limit, settings.enforce, settings.draining) == (1234, True, False)
    given = every_setting(loop.call_later)
    assert {name: type(getattr(settings, name)) for name in NAMES} == {name: type(value) for name, value in given.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_forgotten_setting_is_named(loop: asyncio.AbstractEventLoop, name: str) -> None:
    hooks = Hooks(loop, None, lambda *_: None, lambda *_: None, HookCounters(), slow_seconds=1.0)
    given = every_setting(loop.call_later)
    del given[name]
    with pytest.raises(TypeError, match=rf"\b{name}\b"):
        Settings(Arena(), hooks, Counters(), **given)


@pytest.mark.parametrize("name", [*DEADLINES, *MADE])
def test_what_is_read_unchecked_is_not_none(loop: asyncio.AbstractEventLoop, name: str) -> None:
    with pytest.raises(TypeError, match=rf"'{name}'"):
        make_settings(loop, **{name: None})


def test_no_setting_is_unknown(loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(TypeError, match="no_such_limit"):
        make_settings(loop, no_such_limit=1)
