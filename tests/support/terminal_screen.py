"""A terminal view that a test drives: `with showing(store.path) as run: run(steps)`, where `steps` is given a `Screen`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from soth_mitm.views.store_source import StoreSource
from soth_mitm.views.terminal.app import TerminalView

SECONDS = 30.0


class Screen:
    """What is on the screen, and the keys that change it."""

    def __init__(self, app: TerminalView, pilot: Pilot[Any]) -> None:
        self.app = app
        self._pilot = pilot

    @property
    def rows(self) -> list[str]:
        """The lines as they are drawn, without blanks at their ends."""
        return [strip.text.rstrip() for strip in self.app.screen._compositor.render_strips()]

    @property
    def text(self) -> str:
        return "\n".join(self.rows)

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)

    async def write(self, text: str) -> None:
        """Write into the filter."""
        await self.press("slash")
        self.app.filter_box.value = text

    async def until(self, is_so: Callable[[], object]) -> None:
        """Wait until it is so, for a bounded time."""
        end = time.monotonic() + SECONDS
        while not is_so():
            assert time.monotonic() < end, f"this did not come:\n{self.text}"
            await self._pilot.pause(0.01)

    async def shows(self, *texts: str) -> None:
        """Wait until all of these are on the screen."""
        await self.until(lambda: all(text in self.text for text in texts))

    async def hides(self, text: str) -> None:
        await self.until(lambda: text not in self.text)

    async def resize(self, width: int, height: int) -> None:
        await self._pilot.resize_terminal(width, height)


def show(store: Path, steps: Callable[[Screen], Awaitable[None]], *, size: tuple[int, int] = (140, 40), **named: Any) -> TerminalView:
    """Show a store while `steps` runs, and return the view, which has ended."""

    async def run() -> TerminalView:
        source = StoreSource(store)
        try:
            app = TerminalView(source, **named)
            async with app.run_test(size=size) as pilot:
                screen = Screen(app, pilot)
                await screen.until(lambda: app.listing.is_read or "cannot be read" in screen.text)
                await steps(screen)
            return app
        finally:
            source.close()

    return asyncio.run(run())
