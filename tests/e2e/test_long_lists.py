"""A list of destinations as long as block lists are does not hold the loop: not when a name is looked up, and not in a reload."""

import asyncio
from collections.abc import Callable

import pytest

from soth_mitm import MitmConfig, MitmProxyBuilder

MANY = 100_000


@pytest.mark.anyio
async def test_the_loop_turns_while_a_long_list_is_loaded(make_config: Callable[..., MitmConfig]) -> None:
    config = make_config()
    config.interception.destinations += [f"*.{number:x}.example.com:443" for number in range(MANY)]
    turns = 0
    async with MitmProxyBuilder(make_config()).build() as handle:
        reload = asyncio.create_task(handle.reload(config))
        while not reload.done():
            await asyncio.sleep(0.001)
            turns += 1
        await reload
        assert handle.current_config().interception.destinations == config.interception.destinations
    # seconds of work; done on the loop it leaves room for one turn
    assert turns > 20


@pytest.mark.anyio
async def test_the_latest_of_two_reloads_stands(make_config: Callable[..., MitmConfig]) -> None:
    """The first one takes longer; were the two not put into an order, it would end last."""
    long, short = make_config(), make_config(max_concurrent_flows=7)
    long.interception.destinations += [f"*.{number:x}.example.com:443" for number in range(MANY // 4)]
    async with MitmProxyBuilder(make_config()).build() as handle:
        first = asyncio.create_task(handle.reload(long))
        await asyncio.sleep(0)
        await handle.reload(short)
        await first
        assert handle.current_config().max_concurrent_flows == 7
