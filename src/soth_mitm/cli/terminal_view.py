"""`soth-mitm view --terminal`: a process of its own, so that drawing takes nothing from the traffic."""

import importlib.util
import os
import sys
from pathlib import Path

from soth_mitm.cli.exits import START_FAILED, Failure, explained


def has_terminal_view() -> bool:
    """Tell whether the package that draws is here."""
    return importlib.util.find_spec("textual") is not None


def is_terminal() -> bool:
    """Tell whether a person sits at all three standard streams, before a terminal that can be drawn on."""
    return os.environ.get("TERM") != "dumb" and all(os.isatty(number) for number in (0, 1, 2))


def show_on_terminal(store: Path) -> None:
    """Show the flows of a store until the user leaves. `Failure`: there is no terminal, the extra is missing, or the store is none."""
    if not has_terminal_view():
        what = "the view on a terminal needs textual, which the extra `view` brings"
        raise Failure(START_FAILED, f"{what}: pip install 'soth-mitm[view]'")
    if not is_terminal():
        raise Failure(START_FAILED, "this is no terminal to draw on; `soth-mitm flows list` and `flows watch` print lines")
    # this needs the package of the extra
    from soth_mitm.views.store_source import StoreSource
    from soth_mitm.views.terminal.app import TerminalView

    with explained():
        source = StoreSource(store)
        try:
            app = TerminalView(source)
            app.run()
        finally:
            source.close()
        if app.return_code:
            sys.exit(app.return_code)
