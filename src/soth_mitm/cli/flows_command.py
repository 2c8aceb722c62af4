"""`soth-mitm flows`: what a flow store holds: listed, shown, searched, exported, summed, watched, removed."""

import itertools
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from soth_mitm.cli.configured import as_json
from soth_mitm.cli.exits import RUN_FAILED, Failure
from soth_mitm.cli.flow_json import as_json as json_text
from soth_mitm.cli.flow_json import flow_object, row_object
from soth_mitm.cli.flow_lines import FAINT, moment, print_lines
from soth_mitm.cli.flow_page import show_events, show_flow, show_side
from soth_mitm.cli.flow_replay import NotSendableError, compared, credential_value, parse_place, replay_of, send, show_compared
from soth_mitm.cli.request_lines import size_text
from soth_mitm.errors import FilterError, StoreError
from soth_mitm.escaping import shown
from soth_mitm.observe.filter_fields import FieldKind, number_of
from soth_mitm.observe.filter_language import And, Node, parse_filter
from soth_mitm.observe.flow_curl import curl_command
from soth_mitm.observe.har import har_document, is_exchange
from soth_mitm.observe.har_stored import stored_har_flow
from soth_mitm.observe.store.flow_content import FlowContent
from soth_mitm.observe.store.flow_row import FlowRow
from soth_mitm.observe.store.place import default_store_path
from soth_mitm.observe.store.reader import Facets, StoreReader, all_rows
from soth_mitm.observe.store.removal import index_missing, prune

EVERYTHING = And(())
# of flows, and in filters, where a dash is `not`
NEGATIVE: dict[str, Any] = {"ignore_unknown_options": True}
NOTHING = 1
"""Exit code when nothing matches."""
SHOWN = 50
"""Flows of `list`, unless it is asked for more."""
# Of a pipe: lines are as long as they are
_WIDE = 100_000
_SEARCH_SECONDS = 2.0
_WATCH_SECONDS = 1.0

store_file = click.option("--store", "store", metavar="FILE", help="The flow store.  [default: flows.db in the user's state directory]")


@click.group("flows", short_help="List, show, search and export flows that were kept.")
def flows() -> None:
    """Read what `soth-mitm run`, `exec` or an SqliteSink has kept.

    FILTER takes fields and words: 'host:anthropic status>=400', 'is:llm tokens>10k since:1h', 'deadline exceeded'. docs/flows.md has all of
    them. Exit codes: 0, 1 when nothing matches, 2 wrong usage, 23 when the store cannot be read.
    """


@contextmanager
def told() -> Iterator[None]:
    """Turn what a store or a filter says into the end of the command."""
    try:
        yield
    except FilterError as error:
        lines = [shown(line) for line in error.pointed().split("\n")]
        raise click.UsageError("the filter cannot be read\n" + "\n".join(f"  {line}" for line in lines)) from error
    except StoreError as error:
        raise Failure(RUN_FAILED, shown(str(error))) from error


@contextmanager
def opened(store: str | None) -> Iterator[StoreReader]:
    """Open the store that --store names, or the user's."""
    with told(), StoreReader(Path(store) if store is not None else default_store_path()) as reader:
        yield reader


def console() -> Console:
    """Return what lines are printed on: as wide as the terminal, and without bounds in a pipe."""
    made = Console(highlight=False, markup=False, emoji=False)
    return made if made.is_terminal else Console(highlight=False, markup=False, emoji=False, width=_WIDE)


def read_filter(words: tuple[str, ...]) -> Node:
    """Return the filter that the arguments make, joined by blanks."""
    for word in words:
        if word.startswith("--"):
            raise click.NoSuchOption(word)
    with told():
        return parse_filter(" ".join(words))


def nothing(what: str) -> None:
    """End the command: nothing matches."""
    click.echo(what, err=True)
    sys.exit(NOTHING)


@flows.command("list", short_help="List flows, newest first.", context_settings=NEGATIVE)
@click.argument("filter_", metavar="[FILTER]...", nargs=-1)
@click.option("-n", "--limit", type=click.IntRange(1), default=SHOWN, show_default=True, help="At most so many.")
@click.option("--all", "is_all", is_flag=True, help="All that match.")
@store_file
@as_json
def list_(filter_: tuple[str, ...], limit: int, is_all: bool, store: str | None, as_json: bool) -> None:
    """List the flows that match FILTER, newest first."""
    wanted = read_filter(filter_)
    with opened(store) as reader:
        rows = list(all_rows(reader, wanted)) if is_all else reader.flows(wanted, limit=limit).rows
        if not rows:
            nothing("no flow matches" if filter_ else f"no flow is kept in {shown(str(reader.path))}")
        if as_json:
            for row in rows:
                click.echo(json_text(row_object(row)))
            return
        out = console()
        print_lines(out, rows)
        if out.is_terminal:
            matching = len(rows) if is_all else reader.count(wanted)
            total = reader.count()
            of = f"{matching:,} of {total:,} flows" if matching != total else f"{total:,} flows"
            some = f", the newest {len(rows)} of them shown (--all)" if matching > len(rows) else ""
            out.print(Text(f"{of}{some}.  soth-mitm flows show {rows[0].id}", FAINT), soft_wrap=True)


def _number(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no number of a flow; -1 is the newest") from None


flow_number = click.argument("id_", metavar="ID", callback=_number)


def found_flow(reader: StoreReader, number: int, filter_: Node = EVERYTHING) -> FlowContent:
    """Return a flow by its id, or, of a negative number, the newest one, the one before it and so on. Ends the command if there is none."""
    if number < 0:
        rows = reader.flows(filter_, limit=-number).rows
        id_ = rows[-number - 1].id if len(rows) >= -number else 0
    else:
        id_ = number
    content = reader.flow(id_)
    if content is None:
        nothing(f"there is no flow {number}" + (": it may have been removed to make room" if number > 0 else ""))
    assert content is not None
    return content


@flows.command("show", short_help="Show one flow.", context_settings=NEGATIVE)
@flow_number
@click.option("--request", "part", flag_value="request", help="The whole request.")
@click.option("--response", "part", flag_value="response", help="The whole response.")
@click.option("--events", "part", flag_value="events", help="Every event of a stream, or message of a WebSocket.")
@click.option("--raw", is_flag=True, help="The octets of the response's body, or with --request those of the request's, and nothing else.")
@store_file
@as_json
def show(id_: int, part: str | None, raw: bool, store: str | None, as_json: bool) -> None:
    """Show the flow ID; -1 is the newest."""
    with opened(store) as reader:
        content = found_flow(reader, id_)
        if raw:
            sys.stdout.buffer.write((content.request if part == "request" else content.response).body)
        elif as_json:
            click.echo(json_text(flow_object(content)))
        elif part is None:
            show_flow(console(), content)
        elif part == "events":
            show_events(console(), content)
        else:
            show_side(console(), content, content.request if part == "request" else content.response)


@flows.command("search", short_help="Search text in URLs, bodies and messages.")
@click.argument("words", nargs=-1, required=True)
@click.option("--filter", "also", default="", metavar="FILTER", help="Only among flows that match this.")
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True, help="At most so many.")
@store_file
@as_json
def search(words: tuple[str, ...], also: str, limit: int, store: str | None, as_json: bool) -> None:
    """Find flows that have all WORDS, the last one as the beginning of a word; "several words" in quotes as they stand."""
    with opened(store) as reader:
        text = " ".join(f'"{word}"' if " " in word and '"' not in word else word for word in words)
        node = parse_filter(also)
        index_missing(reader.path, _SEARCH_SECONDS)
        found = reader.search(text, node, limit=limit)
        unseen = f"{found.unseen:,} flows were not searched, since their words are not in the word table yet" if found.unseen else ""
        if not found.hits:
            nothing("nothing matches" + (f"; {unseen}" if unseen else ""))
        if as_json:
            for hit in found.hits:
                click.echo(json_text(row_object(hit.row) | {"before": hit.before, "word": hit.word, "after": hit.after}))
            return
        out = console()
        for hit in found.hits:
            _show_hit(out, hit.row, hit.before, hit.word, hit.after)
        if unseen:
            click.echo(unseen, err=True)


def _show_hit(out: Console, row: FlowRow, before: str, word: str, after: str) -> None:
    head = Text.assemble((f"{row.id:>6}  {moment(row.started)}  ", FAINT), shown(f"{row.method} {row.authority}{row.path}"))
    out.print(head, no_wrap=True, overflow="ellipsis", crop=out.is_terminal)
    if word:
        line = Text.assemble("        ", shown(before.lstrip()), (shown(word), "bold"), shown(after.rstrip()))
        out.print(line, no_wrap=True, overflow="ellipsis", crop=out.is_terminal)


@flows.command("export", short_help="Write flows as HAR, NDJSON or a curl command.", context_settings=NEGATIVE)
@click.argument("filter_", metavar="[FILTER]...", nargs=-1)
@click.option("--har", type=click.File("wb", lazy=True), metavar="FILE", help="Write the flows that match as HAR 1.2 to FILE.")
@click.option("--curl", metavar="ID", callback=_number, help="Print the command that sends this request again.")
@click.option("--ndjson", is_flag=True, help="Print the flows that match, with their content, a line of JSON each.")
@click.option("--tunnels", is_flag=True, help="With --har: tunnels and refusals as well.")
@store_file
def export(filter_: tuple[str, ...], har: Any, curl: int | None, ndjson: bool, tunnels: bool, store: str | None) -> None:
    """Write the flows that match FILTER, the oldest first, in a form that other programs read. Masked values stay masked."""
    if sum((har is not None, curl is not None, ndjson)) != 1:
        raise click.UsageError("say what to write: --har FILE, --curl ID or --ndjson")
    wanted = read_filter(filter_)
    with opened(store) as reader:
        if curl is not None:
            try:
                command, lacks = curl_command(found_flow(reader, curl, wanted))
            except ValueError as error:
                raise Failure(RUN_FAILED, str(error)) from error
            click.echo(command)
            for lack in lacks:
                click.echo(f"note: {shown(lack)}", err=True)
            return
        # by their start, and none of their contents longer than it is written
        ids = [row.id for row in all_rows(reader, wanted)]
        ids.reverse()
        if har is not None:
            _write_har(reader, ids, har, tunnels)
            return
        if not ids:
            nothing("no flow matches")
        for content in _contents(reader, ids):
            click.echo(json_text(flow_object(content)))


def _contents(reader: StoreReader, ids: Iterable[int]) -> Iterator[FlowContent]:
    for id_ in ids:
        content = reader.flow(id_)
        # it may have been removed meanwhile
        if content is not None:
            yield content


def _write_har(reader: StoreReader, ids: Iterable[int], file: IO[bytes], tunnels: bool) -> None:
    entries = (flow for flow in map(stored_har_flow, _contents(reader, ids)) if tunnels or is_exchange(flow))
    first = next(entries, None)
    if first is None:
        nothing("no flow matches")
    assert first is not None
    for part in har_document(itertools.chain([first], entries), version("soth-mitm")):
        file.write(part)


@flows.command("stats", short_help="Sums by host, program and model.", context_settings=NEGATIVE)
@click.argument("filter_", metavar="[FILTER]...", nargs=-1)
@store_file
@as_json
def stats(filter_: tuple[str, ...], store: str | None, as_json: bool) -> None:
    """Sum up the flows that match FILTER."""
    wanted = read_filter(filter_)
    with opened(store) as reader:
        sums = reader.facets(wanted)
        if sums.flows == 0:
            nothing("no flow matches")
        sessions = reader.sessions()
        if as_json:
            found = msgspec.to_builtins(sums) | {
                "used_bytes": reader.used_bytes(),
                "dropped": sum(session.dropped for session in sessions),
                "expired": sum(session.expired for session in sessions),
            }
            click.echo(json_text(found))
            return
        out = console()
        _show_stats(out, sums)
        dropped = sum(session.dropped for session in sessions)
        vanished = sum(session.has_vanished for session in sessions)
        words = [f"{shown(str(reader.path))}: {size_text(reader.used_bytes())}", f"{dropped:,} updates dropped"]
        if vanished:
            words.append(f"{vanished} {'run' if vanished == 1 else 'runs'} ended without a goodbye")
        out.print(Text(", ".join(words), FAINT), soft_wrap=True)


def _show_stats(out: Console, sums: Facets) -> None:
    span = f", {moment(sums.first)} to {moment(sums.last)}" if sums.first is not None and sums.last is not None else ""
    out.print(Text(f"{sums.flows:,} flows{span}, {size_text(sums.request_bytes)} up, {size_text(sums.response_bytes)} down", "bold"))
    views = [f"{count:,} {one if count == 1 else more}" for name, (one, more) in _VIEWS.items() if (count := sums.views.get(name, 0))]
    if views:
        out.print(Text(", ".join(views)))
    if sums.calls:
        uncounted = f"; {sums.uncounted:,} of them without a count" if sums.uncounted else ""
        tokens = " and ".join(
            f"{'unknown' if count is None else f'{count:,}'} {word}" for count, word in ((sums.tokens_in, "in"), (sums.tokens_out, "out"))
        )
        cached = f" ({sums.tokens_cached:,} from cache)" if sums.tokens_cached else ""
        out.print(Text(f"{sums.calls:,} model calls, {tokens} tokens{cached}{uncounted}"))
    for title, facets in (("HOST", sums.hosts), ("PROGRAM", sums.programs), ("MODEL", sums.models)):
        if facets:
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style=FAINT)
            table.add_column(title, no_wrap=True, overflow="ellipsis", min_width=24)
            table.add_column("FLOWS", justify="right")
            for facet in facets[:12]:
                table.add_row(shown(facet.value), f"{facet.count:,}")
            if len(facets) > 12:
                table.add_row(f"and {len(facets) - 12} more", "")
            out.print()
            out.print(table)


_VIEWS = {
    "stream": ("stream", "streams"),
    "ws": ("WebSocket", "WebSockets"),
    "failed": ("failed", "failed"),
    "blocked": ("blocked", "blocked"),
    "cut": ("cut", "cut"),
    "tunnel": ("not looked into", "not looked into"),
    "open": ("open", "open"),
}


@flows.command("watch", short_help="Print flows as they come.", context_settings=NEGATIVE)
@click.argument("filter_", metavar="[FILTER]...", nargs=-1)
@store_file
@as_json
def watch(filter_: tuple[str, ...], store: str | None, as_json: bool) -> None:
    """Print the flows that match FILTER when they are over, a line each, until it is interrupted."""
    wanted = read_filter(filter_)
    with opened(store) as reader:
        out = console()
        reader.attach()
        revision = reader.revision()
        while True:
            changes = reader.changes(revision, wanted)
            revision = changes.revision
            for row in changes.rows:
                if row.state != "open":
                    _watched(out, row, as_json)
            if not changes.has_more:
                reader.wait(_WATCH_SECONDS)


def _watched(out: Console, row: FlowRow, as_json: bool) -> None:
    if as_json:
        click.echo(json_text(row_object(row)))
    else:
        print_lines(out, [row], with_titles=False)
    sys.stdout.flush()


@flows.command("prune", short_help="Remove flows.", context_settings=NEGATIVE)
@click.argument("filter_", metavar="[FILTER]...", nargs=-1)
@click.option("--to", "size", metavar="SIZE", help="Remove the oldest until so much is used: 100M.")
@click.option("--all", "is_all", is_flag=True, help="Remove all of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_file
def prune_(filter_: tuple[str, ...], size: str | None, is_all: bool, yes: bool, store: str | None) -> None:
    """Remove the flows that match FILTER, and give the room back to the disk: 'until:3d', 'host:telemetry'."""
    if sum((bool(filter_), size is not None, is_all)) != 1:
        raise click.UsageError("say what to remove: a FILTER such as until:3d, --to SIZE, or --all")
    wanted = read_filter(filter_)
    with opened(store) as reader:
        if size is not None:
            try:
                most = int(number_of(FieldKind.SIZE, size))
            except ValueError as error:
                raise click.UsageError(f"--to: {error}") from error
            removed = prune(reader.path, most)
        else:
            ids = [row.id for row in all_rows(reader, wanted) if not row.is_open]
            if not ids:
                nothing("no flow matches")
            if not yes:
                click.confirm(f"remove {len(ids):,} flows from {shown(str(reader.path))}?", abort=True, err=True)
            removed = prune(reader.path, ids)
        click.echo(f"{removed:,} flows removed, {size_text(reader.used_bytes())} used")


@flows.command("replay", short_help="Send a request again.", context_settings=NEGATIVE)
@flow_number
@click.option("--to", metavar="HOST:PORT", help="Send it there, with the same Host.")
@click.option("--set", "sets", multiple=True, metavar="NAME=VALUE", help="Send this header field in place of what was sent. Repeatable.")
@click.option("--credential", "credentials", multiple=True, metavar="NAME=env:VAR", help="The same, from a variable, or file:PATH.")
@click.option("--anyway", is_flag=True, help="Send it without what is masked or not kept.")
@click.option("--upstream-ca", metavar="FILE", help="Trust the CAs of this PEM file for upstreams, besides the system's.")
@store_file
@as_json
def replay(
    id_: int,
    to: str | None,
    sets: tuple[str, ...],
    credentials: tuple[str, ...],
    anyway: bool,
    upstream_ca: str | None,
    store: str | None,
    as_json: bool,
) -> None:
    """Send the request of flow ID again, through a proxy of its own, and show both answers. The new flow is kept as well."""
    given = {name.lower(): value for name, value in map(_pair, sets)}
    for name, source in map(_pair, credentials):
        try:
            given[name.lower()] = credential_value(source)
        except (ValueError, OSError) as error:
            raise click.UsageError(f"--credential {name}: {error}") from error
    place = None if to is None else parse_place(to)
    with opened(store) as reader:
        before = found_flow(reader, id_)
        try:
            request = replay_of(before, given, anyway=anyway)
        except NotSendableError as error:
            raise Failure(RUN_FAILED, shown_lines(str(error))) from error
        revision = reader.revision()
        send(request, reader.path, to=place, upstream_ca=upstream_ca)
        sent = next((row for row in reader.changes(revision, "is:replayed -is:tunnel").rows if row.path == before.row.path), None)
        after = None if sent is None else reader.flow(sent.id)
        if after is None:
            raise Failure(RUN_FAILED, "the request was sent, but is not in the store: it may be full, or busy")
        if as_json:
            click.echo(json_text(compared(before, after)))
        else:
            show_compared(console(), before, after)


def shown_lines(text: str) -> str:
    """Return lines, each escaped."""
    return "\n".join(shown(line) for line in text.split("\n"))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"{text!r} is not NAME=VALUE")
    return name, value


@flows.command("path", short_help="Print where the store is.")
@store_file
def path(store: str | None) -> None:
    """Print the path of the store."""
    with told():
        click.echo(str(Path(store) if store is not None else default_store_path()))
