"""The web view's page in Chromium, over a real store that is written meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from soth_mitm.observe.flow_record import FlowUpdate
from soth_mitm.views.store_source import StoreSource
from support import made_flows as made
from support.browser import CHROMIUM, Browser, Page
from support.made_store import MadeStore, lately
from support.viewing import RunningView, viewing

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.shares_resources,
]

READY = "document.documentElement.dataset.ready === 'true'"
# what a page does with it is seen: it would set `window.broken`
ATTACK = '"><img src=x onerror="window.broken=1"><script>window.broken=2</script><svg onload="window.broken=3"></svg>{{constructor}}\u202e'


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MadeStore]:
    with MadeStore(tmp_path) as running:
        yield running


@pytest.fixture
def view(store: MadeStore) -> Iterator[RunningView]:
    source = StoreSource(store.path)
    try:
        with viewing(source) as running:
            yield running
    finally:
        source.close()


@pytest.fixture
def page(browser: Browser, view: RunningView) -> Iterator[Page]:
    with browser.page() as running:
        yield running


def begin(page: Page, view: RunningView, rows: int | None = None) -> None:
    page.open(view.url)
    page.wait(READY)
    if rows is not None:
        page.wait(f"document.querySelectorAll('.flow .st').length >= {rows} && document.querySelector('.flow .u').innerText !== '…'")


def addresses(page: Page) -> list[str]:
    """Return the addresses of the rows in sight, from the top."""
    found: list[str] = page.do(
        "[...document.querySelectorAll('.flow')].sort((a, b) => a.getAttribute('aria-rowindex') - b.getAttribute('aria-rowindex'))"
        ".map(row => row.querySelector('.u').innerText)"
    )
    return found


def filter_by(page: Page, text: str) -> None:
    page.do("document.getElementById('q').select(), document.getElementById('q').focus()")
    page.type(text)


def test_the_secret_leaves_the_address_and_a_reload_keeps_the_session(store: MadeStore, view: RunningView, page: Page) -> None:
    store.add(*lately([made.exchange(1)], 1))
    begin(page, view, rows=1)
    assert "secret" not in page.do("location.href") and page.do("document.cookie") == ""
    page.reload()
    page.wait(READY)
    page.wait("document.querySelectorAll('.flow').length === 1")
    assert page.faults() == []


def test_an_address_that_was_opened_before(browser: Browser, view: RunningView, page: Page) -> None:
    begin(page, view)
    with browser.page() as second:
        second.open(view.url)
        second.wait(READY)
        assert "opened before" in second.text("#none") and "soth-mitm view" in second.text("#none")


def test_nothing_yet_and_then_something(store: MadeStore, view: RunningView, page: Page) -> None:
    begin(page, view)
    assert "Nothing has passed yet" in page.text("#none") and "soth-mitm ca env --proxy http://127.0.0.1:8080" in page.text("#none")
    store.add(*lately([made.exchange(1, path="/first")], 1))
    page.wait("document.querySelectorAll('.flow').length === 1 && document.getElementById('none').hidden")
    assert addresses(page) == ["api.example.com/first"]


def test_list_filter_and_keys(store: MadeStore, view: RunningView, page: Page) -> None:
    store.add(*lately(made.mixed(200), 200))
    begin(page, view, rows=10)
    assert page.text("#count").startswith("200")
    filter_by(page, "host:openai status:2xx")
    page.wait("document.getElementById('count').innerText.includes(' of 200')")
    page.wait("[...document.querySelectorAll('.flow .u')].every(each => each.innerText.includes('api.openai.com'))")
    filter_by(page, "method:GET hots:x")
    page.wait("!document.getElementById('fault').hidden")
    shown = page.text("#fault")
    assert 'did you mean "host"' in shown and shown.split("\n")[1].index("^") == len("method:GET ")
    page.press("Escape")
    page.wait("document.getElementById('fault').hidden && document.getElementById('count').innerText === '200'")
    page.press("Escape")
    page.do("document.getElementById('rows').focus()")
    first = page.do("document.querySelector('.flow[aria-selected=true]').id")
    page.press("j")
    page.wait(f"document.querySelector('.flow[aria-selected=true]').id !== {json.dumps(first)}")
    page.press("k")
    page.wait(f"document.querySelector('.flow[aria-selected=true]').id === {json.dumps(first)}")
    page.press("End")
    page.wait("document.querySelector('.flow[aria-selected=true]').getAttribute('aria-rowindex') === '200'")
    page.press("Escape")
    page.wait("document.body.classList.contains('closed')")
    page.press("?")
    page.wait("document.getElementById('keys').open")
    page.press("Escape")
    page.press("/")
    assert page.do("document.activeElement.id") == "q"
    assert [fault for fault in page.faults() if "400" not in fault] == []


def test_light_and_dark(view: RunningView, page: Page) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    page.prefer("dark")
    begin(page, view)
    dark = page.do(background)
    page.press("t")
    light = page.wait(f"{background} !== {json.dumps(dark)} && {background}")
    page.reload()
    page.wait(READY)
    assert page.do(background) == light
    page.do("localStorage.clear()")


def test_an_answer_that_grows(store: MadeStore, view: RunningView, page: Page) -> None:
    updates = lately(made.model_stream(1, parts=8), 1)
    store.add(*updates[:4])
    begin(page, view, rows=1)
    page.wait("document.querySelector('.pane')?.innerText.includes('I will look')")
    assert "is computed" not in page.text(".pane") and "answer arriving" in page.text(".pane")
    for update in updates[4:]:
        store.add(update)
    page.wait("document.querySelector('.pane').innerText.includes('I will look at how the deadline is computed.')")
    page.wait("document.querySelector('.pane').innerText.includes('318 out')")
    told = page.text(".pane")
    assert "13,824" in told and "read_file" in told and "tool_use" in told
    page.press("2")
    page.wait("document.querySelectorAll('.ev').length >= 8")
    assert "text_delta" in page.text(".pane")
    page.press("t")
    assert page.faults() == []


def test_messages_of_a_websocket_as_they_come(store: MadeStore, view: RunningView, page: Page) -> None:
    updates = lately(made.websocket(1, ["one", "two", "three"]), 1)
    store.add(*updates[:2])
    begin(page, view, rows=1)
    page.wait("document.querySelector('.pane')?.innerText.includes('one')")
    store.add(updates[2])
    page.wait("document.querySelector('.pane').innerText.includes('two')")
    store.add(*updates[3:])
    page.wait("document.querySelector('.pane').innerText.includes('three')")
    assert page.do("[...document.querySelectorAll('.ev .d')].map(each => each.innerText).join('')").startswith("↑↓↑")
    # the bytes of a WebSocket were not counted, which is not zero
    assert (page.text(".flow .st"), page.text(".flow .what")) == ("101", "")


def test_what_passes_while_one_reads_further_down(store: MadeStore, view: RunningView, page: Page) -> None:
    store.add(*lately(made.mixed(300), 300))
    begin(page, view, rows=10)
    page.do("document.getElementById('rows').scrollTop = 3200")
    page.wait("document.querySelector('.flow[aria-rowindex=\"110\"] .st')?.innerText")
    top = page.do("document.querySelector('.flow[aria-rowindex=\"110\"]').id")
    store.add(*lately([made.exchange(1001), made.exchange(1002)], 1001))
    page.wait("document.getElementById('newer').innerText.includes('2 newer flows')")
    page.wait(f"document.getElementById({json.dumps(top)})?.getAttribute('aria-rowindex') === '112'")
    page.press("f")
    page.wait("document.getElementById('rows').scrollTop === 0 && document.getElementById('newer').hidden")


def test_pause(store: MadeStore, view: RunningView, page: Page) -> None:
    begin(page, view)
    page.press("p")
    page.wait("document.getElementById('live').innerText.includes('Paused')")
    store.add(*lately([made.exchange(1)], 1))
    page.press("p")
    page.wait("document.querySelectorAll('.flow').length === 1")


def injected() -> list[FlowUpdate]:
    """Return flows that have markup in every field that a peer chooses."""
    attack = ATTACK.encode()
    who = made.connection(1, ATTACK)
    head = made.fields(content_type="text/html", x_attack=ATTACK) + ((attack, b"value"),)
    asked = {
        "model": ATTACK,
        "system": ATTACK,
        "tools": [{"name": ATTACK, "description": ATTACK}],
        "messages": [{"role": "user", "content": ATTACK}],
    }
    answer = {
        "type": "message",
        "model": ATTACK,
        "id": ATTACK,
        "stop_reason": ATTACK,
        "content": [{"type": "thinking", "thinking": ATTACK}],
    }
    answer["content"] += [{"type": "text", "text": ATTACK}, {"type": "tool_use", "id": ATTACK, "name": ATTACK, "input": {ATTACK: ATTACK}}]
    call = {"host": "api.anthropic.com", "path": "/v1/messages", "connection": who}
    event = f"event: {ATTACK}\ndata: {ATTACK}\n\n".encode()
    return [
        made.exchange(
            1, attack, attack, host=ATTACK, path="/" + ATTACK, method="POST", request_fields=head, response_fields=head, connection=who,
            cause=ATTACK, outcome="upstream_error",
        ),
        made.exchange(2, json.dumps(asked).encode(), json.dumps(answer).encode(), **call),
        made.exchange(3, b"", event, response_fields=made.fields(content_type="text/event-stream"), protocol="sse", connection=who),
        *made.websocket(4, [ATTACK, ATTACK], connection=who),
        made.tunnel(5, host=ATTACK, cause=ATTACK, connection=who),
        made.refused(6, host=ATTACK, cause=ATTACK, connection=who),
    ]  # fmt: skip


def test_markup_is_shown_as_text_everywhere(store: MadeStore, view: RunningView, page: Page) -> None:
    store.add(*lately(injected(), 6))
    begin(page, view, rows=6)
    seen = 0
    for row in range(1, 7):
        page.do(f"document.querySelector('.flow[aria-rowindex=\"{row}\"]').click()")
        page.wait("document.querySelectorAll('.tabs button').length > 0")
        for tab in range(page.do("document.querySelectorAll('.tabs button').length")):
            page.do(f"document.querySelectorAll('.tabs button')[{tab}].click()")
            page.wait("document.querySelector('.pane').innerText.length > 3")
            page.do("document.querySelectorAll('details').forEach(each => { each.open = true })")
            page.do("document.querySelectorAll('button.ev').forEach(each => each.click())")
            seen += page.text("#detail").count("onerror")
    filter_by(page, ATTACK.replace("\u202e", ""))
    page.wait("!document.getElementById('fault').hidden || document.getElementById('count').innerText.includes(' of ')")
    assert seen > 20
    assert page.do("window.broken") is None
    assert page.do("document.querySelectorAll('main img, main script, aside img, aside script, nav img').length") == 0
    assert [fault for fault in page.faults() if "(Bad Request)" not in fault] == []


def test_policies_hold(view: RunningView, page: Page) -> None:
    begin(page, view)
    assert (
        page.do("(() => { try { document.body.innerHTML = '<b>x</b>'; return 'set' } catch (error) { return error.name } })()")
        == "TypeError"
    )
    page.do("document.head.append(Object.assign(document.createElement('style'), { textContent: 'body { color: red }' }))")
    assert page.do("getComputedStyle(document.body).color") != "rgb(255, 0, 0)"


@pytest.mark.parametrize("width", [1400, 700, 420])
def test_nothing_is_wider_than_the_window(store: MadeStore, view: RunningView, page: Page, width: int) -> None:
    store.add(*lately(made.mixed(50), 50))
    page.resize(width)
    begin(page, view, rows=5)
    assert page.do("document.documentElement.scrollWidth") <= width
    page.do("document.querySelector('.flow').click()")
    page.wait("document.querySelectorAll('.tabs button').length > 0")
    assert page.do("document.documentElement.scrollWidth") <= width


def test_ten_thousand_flows(store: MadeStore, view: RunningView, page: Page) -> None:
    updates = lately(made.mixed(10_000), 10_000)
    for start in range(0, len(updates), 1000):
        store.add(*updates[start : start + 1000])
    begin(page, view, rows=10)
    assert page.text("#count") == "10,000"
    for place in (0.5, 0.99, 0.2):
        page.do(f"document.getElementById('rows').scrollTop = {place} * document.getElementById('space').clientHeight")
        index = int(place * 10_000) + 5
        page.wait(f"document.querySelector('.flow[aria-rowindex=\"{index}\"] .st')?.innerText")
        assert page.do("document.querySelectorAll('.flow').length") < 80
    frames = page.do(
        """new Promise(done => { const box = document.getElementById('rows'), times = []; let last = performance.now(), count = 0
        const step = now => { times.push(now - last); last = now; box.scrollTop += 160; if (++count < 200) requestAnimationFrame(step)
            else { times.sort((a, b) => a - b); done([times[100], times[198]]) } }
        requestAnimationFrame(step) })"""
    )
    # told, not judged: a machine may be busy
    print(f"scrolling: {frames[0]:.1f} ms a frame, 99 % under {frames[1]:.1f} ms")
    assert page.do("document.querySelectorAll('*').length") < 2500
