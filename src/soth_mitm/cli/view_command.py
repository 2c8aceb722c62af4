"""`soth-mitm view`: the flows of a store in a browser, or on the terminal."""

import asyncio
import os
import shutil
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

import click

from soth_mitm.cli.exits import explained
from soth_mitm.cli.terminal_view import show_on_terminal
from soth_mitm.cli.view_process import require_view
from soth_mitm.observe.store.place import default_store_path

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


@click.command(short_help="Show the flows of a store in a browser, or on the terminal.")
@click.argument("file", required=False, metavar="[FILE]", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Listen here, on 127.0.0.1.  [default: a free port]")
@click.option("--terminal", is_flag=True, help="Show them here, on the terminal.")
@click.option("--no-open", is_flag=True, help="Print the address, and open no browser.")
@click.option("--listening", type=int, hidden=True, help="The descriptor of a socket that listens; ends with standard input.")
def view(file: Path | None, port: int, terminal: bool, no_open: bool, listening: int | None) -> None:
    """Show the flows of FILE, a flow store, in a browser: those that are there, and those that come while a proxy writes it.

    With --terminal they are shown here: `/` filters, Enter opens, `?` shows the keys, `q` ends it.

    Without FILE it is the store that `soth-mitm run` keeps. The address that is printed opens the view once, within 5 minutes; `view` again
    prints another one. Nothing can be changed through it, and only this machine can reach it. Ends with SIGINT or SIGTERM.
    """
    if terminal:
        show_on_terminal(file or default_store_path())
        return
    require_view()
    # this needs the packages of the extra
    from soth_mitm.views.serving import ViewServer, open_view_socket
    from soth_mitm.views.store_source import StoreSource

    with explained():
        path = file or default_store_path()
        listens = open_view_socket(f"127.0.0.1:{port}") if listening is None else socket.socket(fileno=listening)
        try:
            source = StoreSource(path)
        except BaseException:
            listens.close()
            raise
        try:
            server = ViewServer(source, listens)
            if listening is not None:
                # of a proxy: the other end of standard input is closed when that ends, however it ends
                threading.Thread(target=_end_with_input, args=(server.stop,), daemon=True).start()
            click.echo(f"view   {server.url}")
            if listening is None:
                click.echo(f"store  {path}")
                click.echo("The address opens the view once, within 5 minutes. Ctrl-C ends it.")
            sys.stdout.flush()
            if not no_open and _has_display():
                webbrowser.open(server.url)
            asyncio.run(server.serve())
        finally:
            source.close()


def _has_display() -> bool:
    """Tell whether a browser would have a window: without one, some take the terminal."""
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in _DISPLAYS) or shutil.which("wslview") is not None


def _end_with_input(stop: Callable[[], None]) -> None:
    sys.stdin.buffer.read()
    stop()
