"""What holds for every test: its event loop, nothing left behind, and a name to blame when the interpreter itself dies.

A module whose fixtures keep connections between its tests says `pytestmark = pytest.mark.shares_resources`; its ledger is then read when
the module ends. Descriptors are compared per module, tolerance none; so a session-scoped fixture opens no descriptor.
"""

import asyncio
import faulthandler
import gc
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from soth_mitm.proxy import threaded
from support.certs import TestCA
from support.doubles import load_double
from support.leaks import DescriptorWatch, outstanding, what_remains

settings.register_profile("ci", max_examples=200, deadline=None, print_blob=True, database=None)
settings.register_profile("dev", max_examples=50, deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

FAILED = pytest.StashKey[bool]()
RUNNING = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --loop."""
    parser.addoption(
        "--loop",
        choices=("uvloop", "asyncio"),
        default="uvloop",
        help="the loop of every proxy in this process and of coroutine tests: the one that users get (uvloop, on Windows winloop), "
        "or asyncio's own",
    )


@pytest.fixture(scope="module")
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run coroutine tests on the loop that --loop names."""
    return "asyncio", {"use_uvloop": request.config.getoption("--loop") == "uvloop"}


@pytest.fixture(scope="session")
def made_bytes() -> Any:
    """What the product makes and reads in C only."""
    return load_double("made_bytes")


@pytest.fixture(autouse=True, scope="session")
def _one_system_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the system have one root: each proxy reads them all, and a machine's 150 take longer than most tests."""
    folder = tmp_path_factory.mktemp("system-roots")
    bundle = folder / "root.pem"
    bundle.write_bytes(TestCA("Root of the System").cert_pem)
    (folder / "empty").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(bundle))
        patch.setenv("SSL_CERT_DIR", str(folder / "empty"))
        yield


@pytest.fixture(autouse=True, scope="session")
def _loop_of_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let `start_in_thread` serve on the loop that --loop names."""
    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("--loop") == "asyncio":
            patch.setattr(threaded, "new_event_loop", asyncio.new_event_loop)
        yield


def pytest_sessionstart(session: pytest.Session) -> None:
    """Make what is made once per process before anything is counted, and prepare the sentinel."""
    # The sanitizer's runtime is in this process by now; in curl and other system programs it hangs
    os.environ.pop("LD_PRELOAD", None)
    assert faulthandler.is_enabled(), "run without `-p no:faulthandler`: a crash in native code must show where it was"
    if os.name == "posix":
        # a run under nohup ignores it, and so would the programs that tests start
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        import uvloop

        # libuv keeps a pipe for its signal handling from the first loop on
        uvloop.new_event_loop().close()
    asyncio.new_event_loop().close()
    cache = session.config.cache
    session.config.stash[RUNNING] = cache.mkdir("running") / "test" if cache else Path(os.devnull)


def pytest_collection_finish() -> None:
    """Let no collection of garbage look at thousands of collected tests: many tests wait by collecting."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave the name of the running test where scripts/test finds it when the interpreter dies."""
    item.config.stash[RUNNING].write_text(item.nodeid, encoding="utf-8")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note failures: the traceback of a failed test keeps alive what its frames hold, which says nothing about leaks."""
    report = yield
    if report.failed:
        for node in item.listchain():
            node.stash[FAILED] = True
    return report


@pytest.fixture(autouse=True, scope="module")
def _descriptors_are_closed(request: pytest.FixtureRequest) -> Iterator[DescriptorWatch]:
    watch = DescriptorWatch()
    yield watch
    if request.node.stash.get(FAILED, False):
        return
    left = what_remains(watch.added)
    assert not left, f"{request.node.nodeid} left open:\n{watch.report(left)}"
    entries = what_remains(outstanding)
    assert not entries, f"{request.node.nodeid} ended with {entries} in the ledger"


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest, _descriptors_are_closed: DescriptorWatch) -> Iterator[None]:
    yield
    _descriptors_are_closed.note(request.node.nodeid)
    if request.node.stash.get(FAILED, False) or request.node.get_closest_marker("shares_resources"):
        return
    entries = what_remains(outstanding)
    assert not entries, f"{request.node.nodeid} ended with {entries} in the ledger"
