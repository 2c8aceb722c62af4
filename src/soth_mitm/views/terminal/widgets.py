"""The parts of the screen: lines that are drawn only as far as they are in sight."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from soth_mitm.views.terminal.cells import FAINT, MARKED, PLAIN, Line, strip_of
from soth_mitm.views.terminal.listing import Listing
from soth_mitm.views.terminal.words import list_line

NARROW = 110
"""Columns of the terminal below which list and details take turns."""


class Bar(Widget):
    """Some lines that do not scroll; `make` gives them for a width."""

    def __init__(self, make: Callable[[int], Sequence[Line]], *, id: str, style: Style = PLAIN) -> None:
        super().__init__(id=id)
        self._make = make
        self._over = style

    def render_line(self, y: int) -> Strip:
        """Draw one line."""
        width = self.size.width
        lines = self._make(width)
        return strip_of(lines[y] if y < len(lines) else [], width, self._over)


class Page(ScrollView, can_focus=True):
    """Lines that scroll."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
        Binding("g", "scroll_home", show=False),
        Binding("G", "scroll_end", show=False),
        Binding("space", "page_down", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.lines: list[Line] = []

    def show(self, lines: list[Line], *, is_new: bool, grows: bool) -> None:
        """Show these; new ones from their beginning, and those that grow at their end if that was in sight."""
        was_at_end = self.scroll_offset.y + self.size.height >= len(self.lines)
        self.lines = lines
        self.virtual_size = Size(self.size.width, len(lines))
        if is_new:
            self.scroll_to(0, 0, animate=False, immediate=True, force=True)
        elif grows and was_at_end:
            self.to_end()
        self.refresh()

    def to_end(self) -> None:
        """Show the last lines."""
        self.scroll_to(0, max(0, len(self.lines) - self.size.height), animate=False, immediate=True, force=True)

    def render_line(self, y: int) -> Strip:
        """Draw one line."""
        row = self.scroll_offset.y + y
        return strip_of(self.lines[row] if row < len(self.lines) else [], self.size.width)


class FlowList(ScrollView, can_focus=True):
    """The flows, newest first; one of them is selected."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move(1)", show=False),
        Binding("k,up", "move(-1)", show=False),
        Binding("pagedown,space", "page(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("g,home", "jump(0)", show=False),
        Binding("G,end", "jump(-1)", show=False),
        Binding("enter", "open", show=False),
    ]

    class Selected(Message):
        """Another flow is selected; `by_hand` tells whether a person chose it."""

        def __init__(self, by_hand: bool) -> None:
            super().__init__()
            self.by_hand = by_hand

    class Opened(Message):
        """The selected flow is to be shown."""

    class Needed(Message):
        """Lines are in sight that have not been read."""

    def __init__(self, listing: Listing) -> None:
        super().__init__(id="flows")
        self.listing = listing
        self.selected: int | None = None
        self.drawn = 0
        """How often it was drawn, for tests."""
        self._row = 0

    # --- what is in it

    @property
    def row(self) -> int:
        """The selected row; 0 in an empty list."""
        found = self.listing.row_of(self.selected)
        return found if found is not None else max(0, min(self._row, len(self.listing) - 1))

    def in_sight(self) -> tuple[int, int]:
        """Return the first row in sight, and the one after the last."""
        top = self.scroll_offset.y
        return top, top + max(1, self.size.height)

    def changed(self, change: Callable[[], None], *, follow: bool) -> None:
        """Let `change` change the listing, and keep what is in sight where it is; with `follow` the newest flow is selected."""
        top = self.scroll_offset.y
        anchor = self.listing.id_at(top)
        change()
        self.virtual_size = Size(self.size.width, len(self.listing))
        before = self.selected
        if follow or before is None:
            self.selected = self.listing.id_at(0)
        elif self.listing.row_of(before) is None:
            self.selected = self.listing.id_at(max(0, min(self._row, len(self.listing) - 1)))
        self._row = self.row
        found = self.listing.row_of(anchor)
        if follow:
            self._scroll(0)
        elif found is not None and found != top:
            self._scroll(found)
        if self.selected != before:
            self.post_message(self.Selected(by_hand=False))
        self.refresh()

    # --- moving

    def select(self, row: int) -> None:
        """Select a row, the nearest one if there is none."""
        if not len(self.listing):
            return
        row = max(0, min(row, len(self.listing) - 1))
        self.selected, self._row = self.listing.id_at(row), row
        top, end = self.in_sight()
        if row < top:
            self._scroll(row)
        elif row >= end:
            self._scroll(row - (end - top) + 1)
        self.post_message(self.Selected(by_hand=True))
        self.refresh()

    def _scroll(self, row: int) -> None:
        self.scroll_to(0, max(0, row), animate=False, immediate=True, force=True)

    def action_move(self, by: int) -> None:
        """Go so many rows down."""
        self.select(self.row + by)

    def action_page(self, by: int) -> None:
        """Go a page down."""
        self.select(self.row + by * max(1, self.size.height - 1))

    def action_jump(self, row: int) -> None:
        """Go to the first row, or with -1 to the last."""
        self.select(row if row >= 0 else len(self.listing) - 1)

    def action_open(self) -> None:
        """Show the selected flow."""
        if self.selected is not None:
            self.post_message(self.Opened())

    def on_click(self, event: events.Click) -> None:
        """Select the row; the selected one is shown."""
        row = self.scroll_offset.y + event.y
        if row < len(self.listing):
            is_same = self.listing.id_at(row) == self.selected
            self.select(row)
            if is_same:
                self.action_open()

    # --- drawing

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Read what has come in sight."""
        super().watch_scroll_y(old_value, new_value)
        if self.listing.missing(*self.in_sight()):
            self.post_message(self.Needed())

    def on_resize(self) -> None:
        """Keep the selected row in sight."""
        self.virtual_size = Size(self.size.width, len(self.listing))
        if self.listing.missing(*self.in_sight()):
            self.post_message(self.Needed())

    def render_line(self, y: int) -> Strip:
        """Draw one row."""
        if y == 0:
            self.drawn += 1
        width = self.size.width
        row = self.scroll_offset.y + y
        id = self.listing.id_at(row)
        if id is None:
            return strip_of([], width)
        over = MARKED if id == self.selected else PLAIN
        line = self.listing.line_at(row)
        if line is None:
            return strip_of([(f"   {id} …", FAINT)], width, over)
        is_narrow = self.app.size.width < NARROW
        pieces = list_line(line, width, has_time=not is_narrow, has_took=is_narrow or width > NARROW)
        return strip_of(pieces, width, over)
