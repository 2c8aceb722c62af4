"""The memory of names: short, bounded, one look-up of a name at a time, and nothing remembered that failed."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from soth_mitm.proxy.counters import ConnectionCounters
from soth_mitm.proxy.resolver import MAX_THREADS, Addresses, Resolver

pytestmark = pytest.mark.anyio

LONG = 3600.0


class Names:
    """A resolver's source that answers from a table, when it is told to."""

    def __init__(self, **table: Addresses | OSError) -> None:
        self.table: dict[str, Addresses | OSError] = {name.replace("_", "."): answer for name, answer in table.items()}
        self.asked: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self, host: str) -> Addresses:
        self.asked.append(host)
        await self.go_on.wait()
        answer = self.table[host]
        if isinstance(answer, OSError):
            raise answer
        return answer


def unknown() -> OSError:
    return socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def test_an_answer_is_remembered_for_its_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    names, counters = Names(a_test=("192.0.2.1", "2001:db8::1")), ConnectionCounters()
    resolver = Resolver(30.0, counters, names)
    now = asyncio.get_running_loop().time()
    monkeypatch.setattr(resolver, "_now", lambda: now)
    assert await resolver.addresses("a.test") == ("192.0.2.1", "2001:db8::1")
    now += 29.9
    assert await resolver.addresses("a.test") == ("192.0.2.1", "2001:db8::1")
    names.table["a.test"] = ("192.0.2.2",)
    now += 0.1
    assert await resolver.addresses("a.test") == ("192.0.2.2",)
    assert names.asked == ["a.test", "a.test"]
    assert (counters.dns_lookups, counters.dns_cache_hits) == (2, 1)


async def test_zero_remembers_nothing() -> None:
    names = Names(a_test=("192.0.2.1",))
    resolver = Resolver(0.0, ConnectionCounters(), names)
    for _ in range(3):
        await resolver.addresses("a.test")
    assert len(names.asked) == 3


async def test_who_asks_meanwhile_waits_for_the_same_answer() -> None:
    names, counters = Names(a_test=("192.0.2.1",)), ConnectionCounters()
    names.go_on.clear()
    resolver = Resolver(0.0, counters, names)
    asking = [asyncio.create_task(resolver.addresses("a.test")) for _ in range(10)]
    await asyncio.sleep(0)
    asking[3].cancel()
    names.go_on.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(answers.pop(3), asyncio.CancelledError)
    assert answers == [("192.0.2.1",)] * 9
    assert (names.asked, counters.dns_lookups) == (["a.test"], 1)


async def test_a_look_up_goes_on_when_all_who_waited_gave_up() -> None:
    names = Names(a_test=("192.0.2.1",))
    names.go_on.clear()
    resolver = Resolver(LONG, ConnectionCounters(), names)
    asking = asyncio.create_task(resolver.addresses("a.test"))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    again = asyncio.create_task(resolver.addresses("a.test"))
    names.go_on.set()
    assert await again == ("192.0.2.1",)
    assert names.asked == ["a.test"]


async def test_a_failure_reaches_all_and_is_not_remembered() -> None:
    names = Names(a_test=unknown())
    resolver = Resolver(LONG, ConnectionCounters(), names)
    failures = await asyncio.gather(*(resolver.addresses("a.test") for _ in range(3)), return_exceptions=True)
    assert [type(failure) for failure in failures] == [socket.gaierror] * 3
    names.table["a.test"] = ("192.0.2.1",)
    assert await resolver.addresses("a.test") == ("192.0.2.1",)
    assert names.asked == ["a.test"] * 2


async def test_a_failure_that_nobody_waits_for_is_no_news() -> None:
    """`filterwarnings = error` and the loop's exception handler would say so."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    names = Names(a_test=unknown())
    names.go_on.clear()
    resolver = Resolver(LONG, ConnectionCounters(), names)
    asking = asyncio.create_task(resolver.addresses("a.test"))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    names.go_on.set()
    with pytest.raises(socket.gaierror):
        await resolver.addresses("a.test")
    del asking
    assert complaints == []


async def test_a_name_without_addresses_is_a_failure() -> None:
    with pytest.raises(socket.gaierror):
        await Resolver(LONG, ConnectionCounters(), Names(a_test=())).addresses("a.test")


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "::1"])
async def test_an_address_is_its_own(address: str) -> None:
    names, counters = Names(), ConnectionCounters()
    assert await Resolver(LONG, counters, names).addresses(address) == (address,)
    assert (names.asked, counters.dns_lookups) == ([], 0)


async def test_what_did_not_answer_is_forgotten_unless_it_was_replaced() -> None:
    names = Names(a_test=("192.0.2.1",))
    resolver = Resolver(LONG, ConnectionCounters(), names)
    old = await resolver.addresses("a.test")
    resolver.forget("a.test", old)
    names.table["a.test"] = ("192.0.2.2",)
    assert await resolver.addresses("a.test") == ("192.0.2.2",)
    # a slow failure of the old ones says nothing about the new
    resolver.forget("a.test", old)
    resolver.forget("b.test", old)
    await resolver.addresses("a.test")
    assert names.asked == ["a.test"] * 2


async def test_the_least_recently_used_name_goes_first() -> None:
    names = Names(a_test=("192.0.2.1",), b_test=("192.0.2.2",), c_test=("192.0.2.3",))
    resolver = Resolver(LONG, ConnectionCounters(), names, max_names=2)
    for name in ("a.test", "b.test", "a.test", "c.test", "a.test"):
        await resolver.addresses(name)
    assert names.asked == ["a.test", "b.test", "c.test"]
    await resolver.addresses("b.test")
    assert names.asked[3:] == ["b.test"]


async def test_look_ups_at_once_are_bounded() -> None:
    names = Names(a_test=("192.0.2.1",), b_test=("192.0.2.2",))
    names.go_on.clear()
    resolver = Resolver(LONG, ConnectionCounters(), names, max_names=1)
    asking = asyncio.create_task(resolver.addresses("a.test"))
    await asyncio.sleep(0)
    with pytest.raises(socket.gaierror, match="looked up already"):
        await resolver.addresses("b.test")
    names.go_on.set()
    await asking
    assert await resolver.addresses("b.test") == ("192.0.2.2",)


async def test_closing_ends_what_is_under_way() -> None:
    names = Names(a_test=("192.0.2.1",))
    names.go_on.clear()
    resolver = Resolver(LONG, ConnectionCounters(), names)
    asking = asyncio.create_task(resolver.addresses("a.test"))
    await asyncio.sleep(0)
    await resolver.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert [task for task in asyncio.all_tasks() if "look up" in task.get_name()] == []
    await resolver.close()


async def test_the_system_knows_this_machine() -> None:
    resolver = Resolver(LONG, ConnectionCounters())
    addresses = await resolver.addresses("localhost")
    assert set(addresses) & {"127.0.0.1", "::1"}
    assert len(addresses) == len(set(addresses))
    await resolver.close()


async def test_names_that_hang_and_a_handler_that_does_hold_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a name server is gone, and every thread of the loop waits for something else."""
    go_on, threads = threading.Event(), 40
    ask_system = socket.getaddrinfo

    def ask(host: str, *arguments: object, **keys: int) -> object:
        if host.startswith("gone"):
            go_on.wait(10)
            raise unknown()
        return ask_system("localhost", *arguments, **keys)

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    resolver = Resolver(LONG, ConnectionCounters())
    waiting = [asyncio.create_task(asyncio.to_thread(go_on.wait, 10)) for _ in range(threads)]
    gone = [asyncio.create_task(resolver.addresses(f"gone-{number}.test")) for number in range(MAX_THREADS - 1)]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        assert await resolver.addresses("here.test")
    go_on.set()
    for answer in await asyncio.gather(*gone, return_exceptions=True):
        assert isinstance(answer, socket.gaierror)
    await asyncio.gather(*waiting)
    await resolver.close()
