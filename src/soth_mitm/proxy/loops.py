"""Which event loop to make, where the choice is ours."""

import asyncio
import sys


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop of the fastest kind for this platform: uvloop's, or winloop's on Windows."""
    if sys.platform == "win32":
        import winloop

        return winloop.new_event_loop()  # type: ignore[no-any-return, unused-ignore]
    import uvloop

    return uvloop.new_event_loop()
