"""The screen: list, filter, details. What has to wait for the disk runs in two threads; the screen changes when the store does."""

import asyncio
import contextlib
import functools
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from soth_mitm.cli.request_lines import size_text
from soth_mitm.errors import FilterError, StoreError
from soth_mitm.views.source import Changes
from soth_mitm.views.store_source import StoreSource
from soth_mitm.views.terminal.cells import BAD, BOLD, CHANGING, FAINT, GOOD, MARKED, PLAIN, Line, clean, cut, sides, wrapped
from soth_mitm.views.terminal.figures import Figures, read_figures
from soth_mitm.views.terminal.har_file import write_har
from soth_mitm.views.terminal.listing import Listing
from soth_mitm.views.terminal.pages import TABS, FlowPage, Pages, TabName, first_tab
from soth_mitm.views.terminal.widgets import NARROW, Bar, FlowList, Page
from soth_mitm.views.terminal.words import short

T = TypeVar("T")

REDRAW_SECONDS = 0.1
"""The screen changes no more often by itself."""
FIGURES_SECONDS = 1.0
RETRY_SECONDS = 1.0
_AHEAD = 100
_SHORT = {"conversation": "conv.", "timing": "time"}

KEYS = (
    ("j k ↑ ↓", "move in the list, or in the details"),
    ("PgUp PgDn g G", "by pages, to the first, to the last"),
    ("Enter", "show the selected flow"),
    ("Esc", "close the details, or clear the filter"),
    ("Tab", "go from the list to the details and back"),
    ("1 2 3 4 5 ← →", "conversation, stream, request, response, timing"),
    ("/", "filter, such as host:anthropic status>=400 (docs/flows.md)"),
    ("f", "follow: the newest flow stays selected"),
    ("p", "pause the view, never the traffic"),
    ("c", "copy the request as a curl command"),
    ("y", "copy the body of the response; of the request in its tab"),
    ("e", "write what the filter finds to a HAR file, here"),
    ("?", "these keys"),
    ("q", "leave"),
)

MARKS = (("●", "open"), ("▌", "call of a model"), ("!", "cut, or 4xx"), ("✗", "failed, or blocked"), ("○", "not looked at"))


class FilterBox(Input):
    """Where a filter is written, or pasted: what would act on the terminal is escaped in it."""

    def validate_value(self, value: str) -> str:
        """Return what is kept of a new value."""
        return clean(value)


class Box(ModalScreen[None]):
    """Lines above everything, until a key."""

    def __init__(self, title: str, make: Callable[[int], list[Line]]) -> None:
        super().__init__()
        self._title = title
        self._make = make

    def compose(self) -> ComposeResult:
        """Place its parts."""
        with Vertical(id="box"):
            yield Bar(lambda width: [[(cut(self._title, width), BOLD)]], id="box-title")
            yield Page(id="box-lines")

    def on_mount(self) -> None:
        """Fill it once its size is known."""
        self.call_after_refresh(self._fill)

    def on_resize(self) -> None:
        """Fill it anew."""
        self.call_after_refresh(self._fill)

    def _fill(self) -> None:
        page = self.query_one("#box-lines", Page)
        page.show(self._make(max(20, page.size.width)), is_new=True, grows=False)
        page.focus()

    def on_key(self, event: events.Key) -> None:
        """Close it, but for the keys that scroll."""
        if event.key in ("up", "down", "pageup", "pagedown", "home", "end", "j", "k", "tab"):
            return
        event.stop()
        event.prevent_default()
        self.dismiss()


class TerminalView(App[None]):
    """Shows the flows of a store, live, until the user leaves."""

    ENABLE_COMMAND_PALETTE = False
    TITLE = "soth-mitm"
    CSS = f"""
    Screen {{ layout: vertical; }}
    Bar {{ height: 1; width: 1fr; }}
    #filter-row {{ height: 1; }}
    #filter-mark {{ width: 3; }}
    #filter-count {{ width: 24; }}
    #filter {{ width: 1fr; height: 1; border: none; padding: 0; background: ansi_default; }}
    #wrong {{ display: none; height: 4; }}
    #wrong.shown {{ display: block; }}
    #middle {{ height: 1fr; }}
    FlowList {{ width: 1fr; height: 1fr; scrollbar-size-vertical: 1; scrollbar-gutter: stable; overflow-x: hidden; }}
    Page {{ height: 1fr; scrollbar-size-vertical: 1; scrollbar-gutter: stable; overflow-x: hidden; }}
    #details {{ display: none; width: 0.72fr; }}
    #details.shown {{ display: block; }}
    #title {{ height: 2; }}
    .wide #middle {{ border-top: solid ansi_bright_black; border-bottom: solid ansi_bright_black; }}
    .wide #details {{ border-left: solid ansi_bright_black; padding: 0 1; }}
    .narrow #details.shown {{ width: 1fr; }}
    .narrow FlowList.behind {{ display: none; }}
    Box {{ align: center middle; }}
    #box {{ width: 80%; max-width: {NARROW}; height: 90%; border: solid ansi_bright_black; padding: 0 1; background: ansi_default; }}
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", show=False),
        Binding("f", "follow", show=False),
        Binding("p", "pause", show=False),
        Binding("c", "curl", show=False),
        Binding("y", "body", show=False),
        Binding("e", "har", show=False),
        Binding("question_mark", "keys", show=False),
        Binding("escape", "back", show=False),
        Binding("tab", "other_side", show=False, priority=True),
        *(Binding(str(number + 1), f"tab({number})", show=False) for number in range(len(TABS))),
        Binding("left", "next_tab(-1)", show=False),
        Binding("right", "next_tab(1)", show=False),
        Binding("q", "leave", show=False),
        Binding("ctrl+c,ctrl+q", "leave", show=False, priority=True),
    ]

    def __init__(self, source: StoreSource, *, folder: Path | None = None) -> None:
        super().__init__()
        self.source = source
        self._folder = folder
        self.listing = Listing()
        self.follows = True
        self.is_paused = False
        self.updates = 0
        """How often the screen took changes of the store, for tests."""
        self._pages = Pages(source)
        self._lists = ThreadPoolExecutor(1, thread_name_prefix="soth-mitm list")
        self._details = ThreadPoolExecutor(1, thread_name_prefix="soth-mitm details")
        self._figures: Figures | None = None
        self._figures_at = float("-inf")
        self._counts_later = False
        self._filter = ""
        self._filter_error: FilterError | None = None
        self._failed = ""
        self._problem = ""
        self._notice: tuple[str, Line] | None = None
        self._unsearched = 0
        self._tab: TabName | None = None
        self._page: FlowPage | None = None
        self._is_shown = False
        self.list = FlowList(self.listing)
        self.page = Page(id="page")
        """The tab that is shown."""
        self.filter_box = FilterBox(id="filter", compact=True, select_on_focus=False)
        self._side = Vertical(id="details")
        self._bars = (
            Bar(self._head, id="head"),
            Bar(self._count, id="filter-count"),
            Bar(self._wrong, id="wrong"),
            Bar(lambda width: [] if self._page is None else self._page.title, id="title"),
            Bar(self._tabs, id="tabs"),
            Bar(self._foot, id="foot"),
        )
        self._wake = asyncio.Event()
        self._wake_details = asyncio.Event()
        self._unwatch: Callable[[], None] = lambda: None

    # --- its parts

    def compose(self) -> ComposeResult:
        """Place its parts."""
        head, count, wrong, title, tabs, foot = self._bars
        yield head
        with Horizontal(id="filter-row"):
            yield Bar(lambda width: [[(" / ", FAINT)]], id="filter-mark")
            yield self.filter_box
            yield count
        yield wrong
        with Horizontal(id="middle"):
            yield self.list
            with self._side:
                yield title
                yield tabs
                yield self.page
        yield foot

    def on_mount(self) -> None:
        """Begin to watch the store."""
        self.theme = "ansi-dark"
        self.filter_box.cursor_blink = False
        self._set_width(self.size.width)
        self.list.focus()
        loop = asyncio.get_running_loop()

        def changed() -> None:
            # the loop may have ended
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._wake.set)

        self._unwatch = self.source.watch(changed)
        self._wake.set()
        if sys.platform != "win32" and threading.current_thread() is threading.main_thread():
            # the terminal is put in order again
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                loop.add_signal_handler(number, self.exit)
        self.run_worker(self._keep_list(), name="list", exit_on_error=True)
        self.run_worker(self._keep_details(), name="details", exit_on_error=True)

    def on_unmount(self) -> None:
        """Watch no longer."""
        self._unwatch()
        self._lists.shutdown(wait=True, cancel_futures=True)
        self._details.shutdown(wait=True, cancel_futures=True)

    def on_resize(self, event: events.Resize) -> None:
        """Change between one and two columns."""
        self._set_width(event.size.width)
        self.call_after_refresh(self._wake_details.set)

    def _set_width(self, width: int) -> None:
        screen = self.screen_stack[0]
        screen.set_class(width >= NARROW, "wide")
        screen.set_class(width < NARROW, "narrow")

    def _redraw(self, *ids: str) -> None:
        # none of them is there any more once the view ends
        for bar in self._bars:
            if bar.id in ids:
                bar.refresh()

    # --- the bars

    def _head(self, width: int) -> Sequence[Line]:
        found = self._figures
        if found is None:
            return [[(" soth-mitm", BOLD)]]
        state = ("PAUSED", CHANGING) if self.is_paused else ("LIVE", GOOD) if found.is_live else ("ENDED", FAINT)
        where = found.listening if width >= NARROW else found.listening.removeprefix("127.0.0.1")
        left: Line = [
            (f" soth-mitm {where}".rstrip() + "   ", BOLD),
            state,
            (f"   {found.flows:,} flows   {found.open:,} open   ", PLAIN),
            (f"{found.dropped:,} dropped", BAD if found.dropped else PLAIN),
        ]
        tokens = ""
        if found.tokens_in is not None:
            tokens = f"{short(found.tokens_in)} in "
            if width >= NARROW:
                tokens = f"{short(found.tokens_in)} tokens in, {'?' if found.tokens_out is None else short(found.tokens_out)} out   "
        if width >= NARROW:
            tokens += f"{size_text(found.used_bytes)} "
        return [sides(left, [(tokens, FAINT)], width)]

    def _count(self, width: int) -> Sequence[Line]:
        total = self._figures.flows if self._figures is not None else len(self.listing)
        text = f"{len(self.listing):,} of {total:,} " if self.listing.filter else ""
        return [sides([], [(text, FAINT)], width)]

    def _wrong(self, width: int) -> Sequence[Line]:
        error = self._filter_error
        if error is None:
            return []
        # below the box, which scrolls: the part of the filter around the place is written again
        first = max(0, error.position - width + 12)
        before = clean(error.text[first : error.position])
        caret = " " * (3 + len(before))
        return [
            [(f"   {cut(error.text[first:], width - 4)}", PLAIN)],
            [(f"{caret}^", BAD)],
            [(f"   {cut(error.message, width - 4)}", BAD)],
            [(f"   {cut(error.hint, width - 4)}", FAINT)],
        ]

    def _tabs(self, width: int) -> Sequence[Line]:
        page, current = self._page, self._tab
        pieces: Line = []
        is_tight = width < 66
        for number, name in enumerate(TABS, 1):
            count = None if page is None else page.counts[name]
            word = _SHORT.get(name, name) if is_tight else name
            label = f"{number} {word.capitalize()}{f' {count:,}' if count else ''}"
            if name == current:
                pieces.append((f"▌{label}▐", BOLD + MARKED))
            else:
                pieces.append((f" {label} ", FAINT if count is None else PLAIN))
        return [pieces]

    def _foot(self, width: int) -> Sequence[Line]:
        if self._problem:
            return [[(f" {cut(self._problem, width - 2)}", BAD)]]
        if self._notice is not None:
            return [self._notice[1]]
        follows = "f follows" if self.follows else "f follow"
        if width >= NARROW:
            keys = f" j k move  Enter open  / filter  {follows}  p pause  c curl  y body  e HAR  ? keys  q leave"
            note = f"{self._unsearched:,} flows not searched yet  " if self._unsearched else ""
            return [sides([(keys, FAINT)], [(f"{note}store: {cut(self.source.path.name, 40)} ", FAINT)], width)]
        return [[(cut(f" j k move  Enter open  / filter  {follows}  p pause  c curl  e HAR  ? keys  q", width), FAINT)]]

    def say(self, text: str, *, bad: bool = False) -> None:
        """Show a line at the bottom, until a key."""
        self._notice = (text, [(f" {cut(text, max(20, self.size.width - 2))}", BAD if bad else GOOD)])
        self._redraw("foot")

    def on_key(self) -> None:
        """Take the notice away."""
        if self._notice is not None:
            self._notice = None
            self._redraw("foot")

    @property
    def notice(self) -> str:
        """The line at the bottom, `""` if there is none."""
        return self._problem or ("" if self._notice is None else self._notice[0])

    # --- the list

    async def _in_thread(self, pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, call)

    async def _keep_list(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._update()
                problem = ""
            except StoreError as error:
                problem = str(error)
                # a store that is busy, or written anew, can be read later
                self.set_timer(RETRY_SECONDS, self._wake.set)
            if problem != self._problem:
                self._problem = problem
                self._redraw("foot")
            # no more than so many redraws a second, however often the store is written
            await asyncio.sleep(REDRAW_SECONDS)

    async def _update(self) -> None:
        wanted = self._filter
        failed = None if self._filter_error is None else self._failed
        if wanted != failed and (wanted != self.listing.filter or not self.listing.is_read):
            await self._read_all(wanted)
        elif not self.is_paused:
            changes = await self._in_thread(self._lists, lambda: self.source.changes(self.listing.revision, self.listing.filter))
            if changes.is_partial:
                await self._read_all(self.listing.filter)
            elif changes.revision != self.listing.revision:
                self.list.changed(lambda: self._apply(changes), follow=self.follows)
                self._redraw("filter-count")
        await self._fill()
        now = asyncio.get_running_loop().time()
        if now - self._figures_at >= FIGURES_SECONDS:
            self._figures_at = now
            figures = await self._in_thread(self._lists, functools.partial(read_figures, self.source.path))
            if figures != self._figures:
                self._figures = figures
                self._redraw("head", "filter-count")
        elif not self._counts_later:
            # the last change of a busy second is counted too
            self._counts_later = True
            self.set_timer(FIGURES_SECONDS - (now - self._figures_at) + 0.01, self._count_again)

    def _count_again(self) -> None:
        self._counts_later = False
        self._wake.set()

    def _apply(self, changes: Changes) -> None:
        self.updates += 1
        shown = self.list.selected
        if self.listing.apply(changes) and shown is not None:
            if shown in changes.others or any(line.id == shown for line in changes.lines):
                self._wake_details.set()

    async def _read_all(self, wanted: str) -> None:
        try:
            index = await self._in_thread(self._lists, lambda: self.source.index(wanted))
        except FilterError as error:
            # the list stays as it was until the filter can be read
            self._filter_error, self._failed = error, wanted
            self._show_wrong()
            return
        self.updates += 1
        self._unsearched = index.unsearched
        ids = index.ids[: _AHEAD * 2]
        lines = await self._in_thread(self._lists, lambda: self.source.lines(ids))

        def change() -> None:
            self.listing.replace(wanted, index)
            self.listing.fill(lines, ids)

        self.list.changed(change, follow=self.follows)
        if wanted == self._filter:
            # and not only what is kept while another one cannot be read
            self._filter_error = None
            self._show_wrong()
        self._redraw("filter-count", "foot")
        self._wake_details.set()

    def _show_wrong(self) -> None:
        self._bars[2].set_class(self._filter_error is not None, "shown")
        self._redraw("wrong")

    async def _fill(self) -> None:
        first, end = self.list.in_sight()
        if not self.listing.missing(first, end):
            return
        ids = self.listing.missing(first - _AHEAD, end + _AHEAD)
        lines = await self._in_thread(self._lists, lambda: self.source.lines(ids))
        self.list.changed(lambda: self.listing.fill(lines, ids), follow=False)

    def on_flow_list_needed(self) -> None:
        """Read lines that have come in sight."""
        self._wake.set()

    def on_flow_list_selected(self, message: FlowList.Selected) -> None:
        """Show the flow, if details are shown; who moves away from the newest flow follows no longer."""
        if message.by_hand and self.follows and self.list.row > 0:
            self.follows = False
            self._redraw("foot")
        if self._is_shown:
            self._tab = None
            self._wake_details.set()

    def on_flow_list_opened(self) -> None:
        """Show the details of the selected flow."""
        self._is_shown = True
        self._tab = None
        self._side.set_class(True, "shown")
        self.list.set_class(True, "behind")
        self.page.focus()
        self.call_after_refresh(self._wake_details.set)

    # --- the details

    async def _keep_details(self) -> None:
        while True:
            await self._wake_details.wait()
            self._wake_details.clear()
            flow, width = self.list.selected, self.page.size.width
            if not self._is_shown or flow is None or width < 1:
                continue
            try:
                if self._tab is None:
                    found = await self._in_thread(self._details, functools.partial(self.source.lines, [flow]))
                    if found:
                        self._tab = first_tab(found[0])
                tab = self._tab or "response"
                page = await self._in_thread(self._details, functools.partial(self._pages.page, flow, tab, width))
            except StoreError as error:
                self.say(str(error), bad=True)
                continue
            if page is None:
                self.say(f"flow {flow:,} is not kept any more", bad=True)
                continue
            if flow != self.list.selected or tab != self._tab:
                self._wake_details.set()
                continue
            before = self._page
            self._page = page
            is_new = before is None or (before.flow, before.tab) != (flow, tab)
            self.page.show(page.lines, is_new=is_new, grows=before is not None and before.is_open)
            if is_new and page.is_open:
                # of what grows the end is news
                self.page.to_end()
            self._redraw("title", "tabs")
            await asyncio.sleep(REDRAW_SECONDS)

    # --- keys

    def action_filter(self) -> None:
        """Write a filter."""
        self.filter_box.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter by what is written."""
        self._filter = event.value.strip()
        if self._filter != self._failed and self._filter_error is not None:
            self._filter_error = None
            self._show_wrong()
        self._wake.set()

    def on_input_submitted(self) -> None:
        """Go back to the list."""
        self.list.focus()

    async def action_back(self) -> None:
        """Leave the filter, close the details, or clear the filter."""
        if self.filter_box.has_focus:
            if self._filter_error is not None or not self.filter_box.value:
                self.filter_box.value = self.listing.filter if self._filter_error is not None else ""
            self.list.focus()
        elif self._is_shown:
            self._is_shown = False
            self._page = None
            self._side.set_class(False, "shown")
            self.list.set_class(False, "behind")
            self.list.focus()
        elif self.filter_box.value:
            self.filter_box.value = ""

    def action_other_side(self) -> None:
        """Go from the list to the details, or back."""
        if isinstance(self.screen, ModalScreen):
            return
        if self._is_shown and not self.page.has_focus:
            self.page.focus()
        elif self.size.width >= NARROW or not self._is_shown:
            self.list.focus()

    def action_tab(self, number: int) -> None:
        """Show another tab."""
        if self._is_shown:
            self._tab = TABS[number]
            self._redraw("tabs")
            self._wake_details.set()

    def action_next_tab(self, by: int) -> None:
        """Show the tab beside."""
        if self._is_shown and self._tab is not None:
            self.action_tab((TABS.index(self._tab) + by) % len(TABS))

    def action_follow(self) -> None:
        """Follow the newest flow, or do so no longer."""
        self.follows = not self.follows
        if self.follows:
            self.list.changed(lambda: None, follow=True)
        self._redraw("foot")

    def action_pause(self) -> None:
        """Hold the view still, or let it go on."""
        self.is_paused = not self.is_paused
        self._redraw("head")
        self._wake.set()

    async def action_curl(self) -> None:
        """Copy the selected flow as a command."""
        flow = self.list.selected
        if flow is None:
            return
        found = await self._in_thread(self._details, functools.partial(self.source.curl, flow))
        if found is None or not found.command:
            self.say(f"flow {flow:,} is not kept any more" if found is None else found.note, bad=True)
            return
        self._copy(flow, found.command, found.note)

    async def action_body(self) -> None:
        """Copy a body of the selected flow."""
        flow = self.list.selected
        if flow is None:
            return
        side: Literal["request", "response"] = "request" if self._is_shown and self._tab == "request" else "response"
        text = await self._in_thread(self._details, functools.partial(self._pages.body, flow, side))
        if not text:
            self.say(f"no body of the {side} is kept", bad=True)
            return
        self.copy_to_clipboard(text)
        self.say(f"the body of the {side} was given to the terminal's clipboard: {len(text):,} characters")

    def _copy(self, flow: int, text: str, note: str) -> None:
        self.copy_to_clipboard(text)

        def lines(width: int) -> list[Line]:
            found = list(wrapped(text, width))
            if note:
                found += [[], *wrapped(note, width, CHANGING)]
            # which not every terminal does
            said = f"The terminal was asked to copy it. If it did not: soth-mitm flows export --curl {flow}"
            return [*found, [], *wrapped(said, width, FAINT)]

        self.push_screen(Box(f"curl, flow {flow:,}", lines))

    async def action_har(self) -> None:
        """Write the flows of the filter to a file."""
        wanted = self.listing.filter
        try:
            path, count = await self._in_thread(
                self._details, functools.partial(write_har, self.source, wanted, self._folder or Path.cwd())
            )
        except (StoreError, OSError) as error:
            self.say(f"no HAR file was written: {error}", bad=True)
            return
        self.say(f"{count:,} request{'' if count == 1 else 's'} written to {path}")

    def action_keys(self) -> None:
        """Show the keys."""

        def lines(width: int) -> list[Line]:
            found: list[Line] = [[(f"{keys:<16}", BOLD), (cut(what, width - 16), PLAIN)] for keys, what in KEYS]
            return [*found, [], *([(f"{mark}   ", PLAIN), (what, FAINT)] for mark, what in MARKS)]

        self.push_screen(Box("keys", lines))

    def action_leave(self) -> None:
        """Leave the view; the proxy goes on."""
        self.exit()
