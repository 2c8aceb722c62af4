"""The values of credentials under one configuration: had from their sources, kept for a time, and what may go where with them."""

import asyncio
import functools
import shlex
import subprocess
from collections.abc import Callable, Iterable
from typing import Self

from soth_mitm._dataplane.exchange.credentials import CredentialPlaces, CredentialTerms
from soth_mitm._dataplane.http.messages import RawRequest
from soth_mitm.addresses import DEFAULT_PORTS, parse_authority
from soth_mitm.config import MitmConfig
from soth_mitm.config.credential import Credential, check_value
from soth_mitm.destinations import DestinationMap, DestinationPattern
from soth_mitm.errors import InvalidConfigError
from soth_mitm.escaping import get_logger
from soth_mitm.proxy.counters import ConnectionCounters
from soth_mitm.proxy.outbound.origin import Origin
from soth_mitm.proxy.resources import ProxyResources
from soth_mitm.proxy.threads import Threads
from soth_mitm.secret import Secret, without_line_end
from soth_mitm.spellings import SHORTEST, spellings_in_form, spellings_in_json, spellings_of

log = get_logger("soth_mitm.credentials")

Values = dict[int, bytes]
Done = Callable[[Values | None, str], object]

MOST_TERMS = 4096
"""Ways of which it is remembered what may go there."""
MOST_SPELLINGS = 256
"""Of the placeholders and values of the credentials of one destination."""
THREADS = 4
"""Files and commands that are read at a time."""
MOST_OUTPUT = 65536
"""Bytes that a command may write."""


class CredentialValues:
    """The values of `config.credentials`, which the data plane asks for.

    Those of the environment, of files and of `Secret`s are there from the beginning; others come when they are first needed.
    """

    def __init__(self, config: MitmConfig, loop: asyncio.AbstractEventLoop, counters: ConnectionCounters) -> None:
        """Raises `InvalidConfigError` with the key of a credential whose value cannot be read, or is none."""
        self._credentials = tuple(config.credentials)
        self._loop = loop
        self._counters = counters
        self._seconds = config.handler.request_timeout_ms / 1000
        self._verifies = config.upstream.verify_upstream_tls
        self._unverified = DestinationMap((DestinationPattern.parse(text), True) for text in config.upstream.insecure_destinations)
        self._patterns = [[DestinationPattern.parse(text) for text in each.destinations] for each in self._credentials]
        self._values: Values = {}
        self._fresh_until: dict[int, float] = {}
        # one that was replaced lately may still be in a request, or in a response
        self._replaced: Values = {}
        self._under_way: dict[int, asyncio.Task[bool]] = {}
        self._threads = Threads(THREADS, "soth-mitm credential")
        self.terms = functools.lru_cache(MOST_TERMS)(self._terms)
        for number, credential in enumerate(self._credentials):
            source = credential.source
            if isinstance(source, Secret) or (isinstance(source, str) and not source.startswith("command:")):
                try:
                    self._keep(number, _read(credential, self._seconds))
                except (ValueError, OSError) as error:
                    raise InvalidConfigError(f"credentials[{number}].source", _said(error)) from None
        self._check_spellings()

    @classmethod
    def made_for(cls, config: MitmConfig, resources: ProxyResources) -> Self:
        """Return the values under `config`, which has credentials."""
        return cls(config, resources.loop, resources.connection_counters)

    # --- for the data plane

    def _terms(self, origin: Origin, authority: str, is_redirected: bool) -> CredentialTerms:
        """Return what may go to `origin` in requests that name `authority`: the values of the credentials that are for it.

        TLS must verify a name that is one of the credential's destinations, and the request must name one: behind a certificate that is
        good for several names there may be a server of somebody else.
        """
        permitted = self._permitted(origin, authority, is_redirected)
        forbidden: set[bytes] = set()
        wanted: set[bytes] = set()
        redaction: dict[bytes, bytes] = {}
        places = []
        for number, credential in enumerate(self._credentials):
            placeholder = credential.placeholder.encode()
            if number not in permitted:
                forbidden |= self._spellings(number)
                continue
            wanted |= spellings_of(placeholder)
            if credential.redact:
                redaction |= dict.fromkeys(self._spellings_of_values(number), placeholder)
            in_body = (
                frozenset((placeholder,)),
                frozenset(spellings_in_json(placeholder)),
                frozenset(spellings_in_form(placeholder)),
            )
            places.append(CredentialPlaces(number, placeholder, credential.place, in_body))
        return CredentialTerms(forbidden, places, wanted, redaction)

    def values(self, numbers: Iterable[int]) -> Values | None:
        """Return the values of these credentials; None if one of them has to be had first."""
        now = self._loop.time()
        found = {number: self._values[number] for number in numbers if self._fresh_until.get(number, 0.0) > now}
        return found if len(found) == len(set(numbers)) else None

    def resolve(self, numbers: Iterable[int], request: RawRequest, done: Done) -> None:
        """Have the values of these credentials, and call `done` with them; with None, and why, if that fails."""
        now = self._loop.time()
        wanted = sorted(numbers)
        stale = [number for number in wanted if self._fresh_until.get(number, 0.0) <= now]
        waiting = asyncio.gather(*(self._task(number, request) for number in stale), return_exceptions=True)

        def over(future: asyncio.Future[list[bool | BaseException]]) -> None:
            results = [] if future.cancelled() else future.result()
            missing = [number for number, result in zip(stale, results, strict=False) if result is not True]
            if future.cancelled() or missing:
                which = ", ".join(f"credentials[{number}]" for number in missing or stale)
                done(None, f"the value of {which} could not be had from its source (the log says why)")
            else:
                done({number: self._values[number] for number in wanted}, "")

        waiting.add_done_callback(over)

    def count_redacted(self, count: int) -> None:
        """So many values were turned back in the body of a response."""
        self._counters.credentials_redacted += count

    def count(self, numbers: Iterable[int]) -> None:
        """The values of these credentials are put into a request."""
        for number in numbers:
            self._counters.credentials_put_in[self._credentials[number].placeholder] += 1

    # --- inside

    def _permitted(self, origin: Origin, authority: str, is_redirected: bool) -> set[int]:
        name = origin.server_name
        if name is None or not self._verifies or self._unverified.get(origin.host, origin.port) is not None:
            return set()
        try:
            host, port = parse_authority(authority, DEFAULT_PORTS["https"])
        except ValueError:
            return set()
        asked = [(host, port), (name, port)]
        if not is_redirected:
            # a handler may choose another port for the same origin, and a client may not
            asked.append((name, origin.port))
        return {
            number
            for number, patterns in enumerate(self._patterns)
            if all(any(pattern.matches(*each) for pattern in patterns) for each in asked)
        }

    def _spellings(self, number: int) -> frozenset[bytes]:
        placeholder = self._credentials[number].placeholder.encode()
        # HTTP/2 has the names of headers in lower case
        return spellings_of(placeholder) | {placeholder.lower()} | self._spellings_of_values(number)

    def _spellings_of_values(self, number: int) -> frozenset[bytes]:
        values = {known[number] for known in (self._values, self._replaced) if number in known}
        return frozenset().union(*(spellings_of(value) for value in values if len(value) >= SHORTEST))

    def _check_spellings(self) -> None:
        for number, patterns in enumerate(self._patterns):
            for pattern, text in zip(patterns, self._credentials[number].destinations, strict=True):
                others = [other for other, theirs in enumerate(self._patterns) if any(each.overlaps(pattern) for each in theirs)]
                total = sum(len(self._spellings(other)) for other in others)
                if total > MOST_SPELLINGS:
                    raise InvalidConfigError(
                        f"credentials[{number}].destinations",
                        f"`{text}` has so many credentials that {total} spellings would be looked for; {MOST_SPELLINGS} are allowed",
                    )

    def _keep(self, number: int, secret: Secret) -> None:
        credential = self._credentials[number]
        check_value(secret, credential.redact)
        value = secret.reveal()
        known = self._values.get(number)
        lasts = isinstance(credential.source, Secret)
        self._fresh_until[number] = float("inf") if lasts else self._loop.time() + credential.ttl
        if known == value:
            return
        if known is not None:
            self._replaced[number] = known
        self._values[number] = value
        self.terms.cache_clear()

    def _task(self, number: int, request: RawRequest) -> asyncio.Task[bool]:
        """Return the task that has the value of a credential; all requests that need it share it."""
        task = self._under_way.get(number)
        if task is None:
            task = self._under_way[number] = self._loop.create_task(self._have(number, request), name="soth-mitm credential")
            task.add_done_callback(lambda _: self._under_way.pop(number, None))
        return task

    async def _have(self, number: int, request: RawRequest) -> bool:
        """Have the value of a credential from its source; false if that failed, which is logged."""
        credential = self._credentials[number]
        source = credential.source
        try:
            async with asyncio.timeout(self._seconds):
                if isinstance(source, str | Secret):
                    secret = await self._loop.run_in_executor(self._threads, _read, credential, self._seconds)
                else:
                    secret = await source.resolve(credential.placeholder, request)
            if not isinstance(secret, Secret):
                raise TypeError(f"{type(source).__name__}.resolve returned {type(secret).__name__}, and not a Secret")
            self._keep(number, secret)
        except Exception as error:
            # a source is somebody else's code: whatever it raises fails the requests that wait, and its words may hold the value
            known = isinstance(source, str | Secret) or isinstance(error, TimeoutError)
            log.warning("credentials[%d]: the value could not be had: %s", number, _said(error) if known else type(error).__name__)
            return False
        return True

    async def close(self) -> None:
        """Cancel what is under way. When no connection uses the values any more."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.close()
        self._values.clear()
        self._replaced.clear()


def _read(credential: Credential, seconds: float) -> Secret:
    """Return the value of a source that is no code; may block. `ValueError` and `OSError` do not show it."""
    source = credential.source
    if isinstance(source, Secret):
        return source
    assert isinstance(source, str)
    scheme, _, rest = source.partition(":")
    if scheme == "env":
        return Secret.from_env(rest)
    if scheme == "file":
        return Secret.from_file(rest)
    return _run(rest, seconds)


def _run(command: str, seconds: float) -> Secret:
    arguments = shlex.split(command)
    try:
        ran = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"`{arguments[0]}` did not end in {seconds:g} s (handler.request_timeout_ms)") from None
    if ran.returncode:
        raise ValueError(f"`{arguments[0]}` ended with exit code {ran.returncode}")
    if len(ran.stdout) > MOST_OUTPUT:
        raise ValueError(f"`{arguments[0]}` wrote {len(ran.stdout)} bytes, which is no value")
    return Secret(without_line_end(ran.stdout))


def _said(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, TimeoutError):
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
