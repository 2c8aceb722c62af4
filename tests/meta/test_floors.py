"""A file imports only what stands to its left on its own floor, or on a lower floor (docs/architecture.md, "Floors").

A new module is entered in FLOORS, at the place that its imports allow. Within a line the package itself (its `__init__`) comes last.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.source import ROOT, line_of, module_name, named, package_files, without_text

# floor  folder: modules, from left to right
FLOORS = """
1  errors
1  _dataplane.memory: ledger waiter budget view buffer deadline transitions
1  _dataplane.wire: scan fields target head forwards headers head_edits decode redactor
1  _dataplane.http1: head_parser framing encoder
1  _dataplane.http: upgrade changes messages counters
1  _dataplane.wire: framer sse ndjson grpc eventstream streams client_hello fingerprint
1  _dataplane.websocket: payload violations frame handshake deflate windows message_reader message_writer
1  _dataplane.http2: octets frame hpack_table hpack_decoder hpack_encoder settings flow_control limits stream_state message
1  _dataplane.http2: session_stream session session_probe
1  _dataplane.transport: callbacks states tls_engine endpoint outbound_endpoint gathered_writes
1  _dataplane.http: hooks settings
1  _dataplane.transport: lingering_close awaitable_endpoint
1  _dataplane.exchange: body_buffer states
1  _dataplane.http: stream stages
1  _dataplane.upstream: pool connect_probe
1  _dataplane.exchange: callbacks flow_recording relay route budget_share own_body hook_queue credentials chunk_judge chunk_filter
1  _dataplane.exchange: staged_content taps
1  _dataplane.exchange: message_tap message_filter stream_tunnel open_websockets decision
1  _dataplane.exchange: response_drain redacted_stream exchange_state exchange_recorded exchange_shown exchange_ends exchange_pressure
1  _dataplane.exchange: exchange_answers exchange_changes exchange_upgrades exchange_credentials exchange_responses exchange_stages exchange
1  _dataplane.http1: connection_state connection_auth stream client server
1  _dataplane.http2: extended_connect outlet stream client server
1  _dataplane:
2  escaping spellings addresses globs destinations connection message_parts decision response_decision address_ranges secret
2  config: schema sections credential loading strict not_built tree
2  address_guard
2  config: effect reference
2  policy openings connect_decision chunk_decision handler chain metrics
3  tls: hardening ciphers names client_hello fingerprint failures bypass safe_files ca ca_files ca_rotation ca_formats leaf sessions
3  tls: contexts
3  tls.trust: command linux macos windows nss stores installed
3  tls: bundle environment
3  process._linux: sock_diag socket_owners
3  process: address naming identity linux macos windows attribution
3  observe: observation flow_event flow_record event_sink sink_feed sink_feeds families exposition metrics_page
3  observe: masked_names masked_value masked_text masking sink_file ndjson flow_gathering har
3  llm: json_text model_request model_call
3  llm: draft openai_chat openai_responses anthropic gemini ollama bedrock recognition answer_reader conventions
3  llm: observer
3  observe: event_states recorded_flow websocket_turns recording
3  observe: search_words filter_fields filter_language framers model_reading flow_call har_flow har_sink
3  observe: otel_names otel_attributes otel_export otel
3  observe.store: schema content liveness attached flow_row flow_content
3  observe: filter_predicate filter_sql har_stored flow_curl
3  observe.store: reader side_writing flow_writing word_index retention writer sink place removal
3  observe:
4  proxy: own_address flow_counts
4  proxy: detached deadlines counters descriptors forks tasks threads loops protocols process_lookup learning calls settings resolver
4  proxy.outbound: origin direct
4  proxy: tls_info alpn tls_handshake dialler upstream_pools leaves resources metrics_collection start_warnings
4  proxy: redirects credential_values generation listener status_server client_reader client
4  proxy.inbound: target http_proxy
4  proxy: session client_tls decisions routing first_bytes connection_setup service status_pages handle threaded signals proxy
4  views: texts source access answers store_source server serving
5  __init__
5  rules: matching block_hosts set_header map_remote map_local mock_json sought deltas redact
5  doctor: http2_origin origin programs children examination
5  cli: exits configured shells handler_loading display request_lines descriptors kept_flows view_process serving check_command
5  cli: trust_commands ca_commands
5  cli: flow_lines flow_json flow_page flow_replay flows_command
5  views.terminal: cells listing figures har_file words pages widgets app
5  cli: doctor_command child run_summary exec_command terminal_view view_command commands
5  __main__
"""

# What a floor knows nothing of; a name covers the modules below it
UNKNOWN = {
    1: ["asyncio", "uvloop", "winloop", "cryptography", "msgspec", "tomllib"],
    2: ["asyncio", "uvloop", "winloop", "socket", "ssl", "cryptography"],
    3: ["click", "rich"],
    4: ["click", "rich"],
}


class Place(NamedTuple):
    """Where a module stands: floor, then position from the left."""

    floor: int
    position: int


class Import(NamedTuple):
    """One import: the dotted module and, for `from`, one imported name."""

    line: int
    module: str
    name: str


def places(table: str) -> dict[str, Place]:
    """Read the table, which lists the floors from the ground up."""
    rows = [re.fullmatch(r"(\d)\s+(?:([\w.]+):)?(.*)", row.strip()) for row in table.splitlines() if row.strip()]
    order: list[tuple[str, int]] = []
    for index, row in enumerate(rows):
        assert row is not None, "a row of FLOORS is `floor [folder:] module module ...`"
        floor, folder = int(row[1]), row[2]
        order += [(f"{folder}.{name}" if folder else name, floor) for name in row[3].split()]
        if folder and not any(later and later[2] == folder for later in rows[index + 1 :]):
            order.append((folder, floor))
    known = {name: Place(floor, position) for position, (name, floor) in enumerate(order)}
    assert len(known) == len(order), "FLOORS names a module twice"
    assert [floor for _, floor in order] == sorted(floor for _, floor in order), "the rows of FLOORS ascend"
    return known


def python_imports(code: str) -> Iterator[Import]:
    """Find every import of a Python file, those inside functions and those by importlib included."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (Import(node.lineno, module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__") and node.args:
            target = node.args[0]
            if isinstance(target, ast.Constant) and isinstance(target.value, str):
                yield Import(node.lineno, target.value, "")


CYTHON_FROM = re.compile(r"^[ \t]*from\s+([\w.]+)\s+c?import\s+(\([^)]*\)|[^\n]*)", re.MULTILINE)
CYTHON_IMPORT = re.compile(r"^[ \t]*c?import\s+([\w., \t]+)", re.MULTILINE)


def cython_imports(code: str) -> Iterator[Import]:
    """Find every import and cimport of a Cython file."""
    bare = without_text(code)
    for match in CYTHON_FROM.finditer(bare):
        for name in match[2].strip("() \n").split(","):
            if name.strip():
                yield Import(line_of(bare, match.start()), match[1], name.split()[0])
    for match in CYTHON_IMPORT.finditer(bare):
        yield from (Import(line_of(bare, match.start()), module.split()[0], "") for module in match[1].split(",") if module.strip())


def imported_module(item: Import, known: dict[str, Place]) -> str:
    """Return which of our modules an import means, "" for one that is not ours."""
    head, _, rest = item.module.partition(".")
    if head != "soth_mitm":
        return ""
    inner = f"{rest}.{item.name}".strip(".") if item.name else rest
    return inner if inner in known else rest or "__init__"


def broken_rules(module: str, code: str, *, cython: bool, table: str = FLOORS) -> list[str]:
    """Return what is wrong with the imports of a file, each beginning with its line."""
    known = places(table)
    if module not in known:
        return [f"1: {module} is not in FLOORS of tests/meta/test_floors.py; enter it where its imports allow"]
    own = known[module]
    wrong = []
    for item in cython_imports(code) if cython else python_imports(code):
        target = imported_module(item, known)
        if item.module.startswith("."):
            wrong.append(f"{item.line}: relative import; write the absolute one")
        elif target and target not in known:
            wrong.append(f"{item.line}: {target} is not in FLOORS of tests/meta/test_floors.py; enter it where its imports allow")
        elif target and known[target].position > own.position:
            wrong.append(f"{item.line}: {target} (floor {known[target].floor}) stands above {module} (floor {own.floor}) or to its right")
        elif item.module.partition(".")[0] in UNKNOWN.get(own.floor, ()):
            wrong.append(f"{item.line}: floor {own.floor} knows nothing of {item.module.partition('.')[0]}")
    for match in re.finditer(r"\bTYPE_CHECKING\b", without_text(code)):
        wrong.append(f"{line_of(without_text(code), match.start())}: TYPE_CHECKING: a type needed only for a hint lives one floor too high")
    return wrong


# A stub is read by type checkers and editors only, and may name the types of any floor.
@pytest.mark.parametrize("path", package_files(".py", ".pyx", ".pxd"), ids=named)
def test_imports_point_downward(path: Path) -> None:
    cython = path.suffix in (".pyx", ".pxd")
    wrong = broken_rules(module_name(path), path.read_text(encoding="utf-8"), cython=cython)
    assert not wrong, "\n".join(f"{named(path)}:{rule}" for rule in wrong)


def test_every_place_is_taken() -> None:
    taken = {module_name(path) for path in package_files(".py", ".pyx", ".pxd")}
    assert sorted(places(FLOORS).keys() - taken) == [], "FLOORS names modules that are not there; remove them"


@pytest.mark.parametrize("header", sorted((ROOT / "ext").glob("*.[ch]")), ids=named)
def test_c_has_never_heard_of_python(header: Path) -> None:
    assert strangers(header.read_text(encoding="utf-8")) == []


def strangers(code: str) -> list[str]:
    """Return the includes of a C file that are neither the platform's nor of `ext/`."""
    quoted = re.findall(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]', code, re.MULTILINE)
    return [name for name in quoted if name.startswith(("Python", "cpython/", "uv.h", "openssl/")) or "/" in name and "sys/" not in name]


TABLE = """
1  errors
1  _dataplane: view head
1  _dataplane: writer
2  policy config
3  tls: leaf ca
4  proxy: listener
5  __init__
5  cli: main
"""


@pytest.mark.parametrize(
    ("module", "code", "part"),
    [
        ("config", "from soth_mitm.proxy import listener", "1: proxy.listener (floor 4) stands above config (floor 2)"),
        ("tls.leaf", "def f():\n    import soth_mitm.tls.ca", "2: tls.ca (floor 3) stands above tls.leaf (floor 3) or to its right"),
        ("tls.ca", "from soth_mitm.tls import CertificateAuthority", "1: tls (floor 3) stands above tls.ca"),
        ("policy", "import soth_mitm", "1: __init__ (floor 5) stands above policy"),
        ("policy", "from soth_mitm import MitmProxy", "1: __init__ (floor 5) stands above policy"),
        ("policy", "def f():\n    importlib.import_module('soth_mitm.cli.main')", "2: cli.main (floor 5) stands above"),
        ("policy", "import ssl", "1: floor 2 knows nothing of ssl"),
        ("policy", "from asyncio.events import AbstractEventLoop", "1: floor 2 knows nothing of asyncio"),
        ("policy", "from . import config", "1: relative import"),
        ("policy", "from soth_mitm.flow import Flow", "1: flow is not in FLOORS"),
        ("flow", "", "1: flow is not in FLOORS"),
        ("tls.ca", "from typing import TYPE_CHECKING", "1: TYPE_CHECKING"),
        ("tls.ca", "import typing\nif typing.TYPE_CHECKING:\n    import x", "2: TYPE_CHECKING"),
    ],
)
def test_floors_test_can_fail_on_python(module: str, code: str, part: str) -> None:
    assert any(rule.startswith(part) for rule in broken_rules(module, code, cython=False, table=TABLE))


@pytest.mark.parametrize(
    ("module", "code", "part"),
    [
        ("_dataplane.view", "\nfrom soth_mitm._dataplane.head cimport Head", "2: _dataplane.head (floor 1) stands above _dataplane.view"),
        ("_dataplane.head", "from soth_mitm._dataplane cimport view, writer", "1: _dataplane.writer (floor 1) stands above"),
        ("_dataplane.head", "from soth_mitm._dataplane.writer cimport (\n    a,\n    b,\n)", "1: _dataplane.writer (floor 1) stands above"),
        ("_dataplane.head", "cdef f():\n    from soth_mitm.config import MitmConfig", "2: config (floor 2) stands above"),
        ("_dataplane.head", "cimport soth_mitm._dataplane.writer as w", "1: _dataplane.writer (floor 1) stands above"),
        ("_dataplane.head", "import asyncio", "1: floor 1 knows nothing of asyncio"),
        ("_dataplane.head", "from .view cimport View", "1: relative import"),
        ("_dataplane.lost", "", "1: _dataplane.lost is not in FLOORS"),
    ],
)
def test_floors_test_can_fail_on_cython(module: str, code: str, part: str) -> None:
    assert any(rule.startswith(part) for rule in broken_rules(module, code, cython=True, table=TABLE))


@pytest.mark.parametrize(
    ("module", "code", "cython"),
    [
        ("tls", "from soth_mitm.tls.ca import CertificateAuthority", False),
        ("cli.main", "from soth_mitm import MitmProxy\nimport soth_mitm.config, ssl, asyncio", False),
        ("_dataplane.writer", '"""from soth_mitm.cli import x"""\nfrom soth_mitm._dataplane.head cimport Head  # import asyncio', True),
        ("_dataplane.head", "from cpython.bytes cimport PyBytes_AS_STRING\nfrom soth_mitm.errors import WireError", True),
    ],
)
def test_floors_test_lets_pass(module: str, code: str, cython: bool) -> None:
    assert broken_rules(module, code, cython=cython, table=TABLE) == []


@pytest.mark.parametrize("code", ["#include <Python.h>", '# include "Python.h"', '#include "../src/x.h"', "#include <openssl/ssl.h>"])
def test_c_test_can_fail(code: str) -> None:
    assert strangers(code)
    assert not strangers('#include <stdint.h>\n#include <sys/socket.h>\n#include "scan.h"')
