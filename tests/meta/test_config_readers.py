"""No key without a reader: each key of the configuration has code that reads it, or is listed as coming later."""

import io
import tokenize
from collections.abc import Iterator

import pytest

from soth_mitm.config import MitmConfig
from soth_mitm.config.not_built import LATER_KEYS
from soth_mitm.config.schema import specs
from support.source import PACKAGE

KEYS = specs(MitmConfig)


def reads(text: str) -> Iterator[tuple[str, str]]:
    """Yield `(owner, attribute)` for each `owner.attribute` in Python or Cython code that is not the target of an assignment.

    Comments and strings do not count, nor does a mere `.attribute` of something with another name: a reader takes the configuration
    as `config` and a section under the section's name.
    """
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type in (tokenize.NAME, tokenize.OP)]
    for owner, dot, attribute, following in zip(tokens, tokens[1:], tokens[2:], [*tokens[3:], None], strict=False):
        if dot.string == "." and owner.type == attribute.type == tokenize.NAME and (following is None or following.string != "="):
            yield owner.string, attribute.string


@pytest.fixture(scope="module")
def read_keys() -> set[str]:
    found: set[str] = set()
    for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyx")]:
        if path.parent != PACKAGE / "config":
            for owner, attribute in reads(path.read_text(encoding="utf-8")):
                found.add(attribute if owner == "config" else f"{owner}.{attribute}")
    return found & set(KEYS)


def test_later_keys_are_keys() -> None:
    assert LATER_KEYS <= set(KEYS)


def test_every_other_key_has_a_reader(read_keys: set[str]) -> None:
    unread = set(KEYS) - LATER_KEYS - read_keys
    assert not unread, f"nothing reads {sorted(unread)} as `section.key` or `config.key`: build it, or add it to LATER_KEYS"


def test_no_later_key_has_a_reader(read_keys: set[str]) -> None:
    early = LATER_KEYS & read_keys
    assert not early, f"{sorted(early)} have a reader now: remove them from LATER_KEYS"


def test_the_search_sees_code_only() -> None:
    text = (
        '"""body.overflow"""\n'
        "cdef int f(self) except -1:  # tls.min_version\n"
        "    limit = self.config.body.max_size_bytes\n"
        "    config.bind = x\n"
        "    if config.workers == 1: return <int>config.upstream.timeout_ms\n"
    )
    assert {"body.max_size_bytes", "config.workers", "upstream.timeout_ms"} <= {f"{owner}.{attribute}" for owner, attribute in reads(text)}
    assert not {"body.overflow", "tls.min_version", "config.bind"} & {f"{owner}.{attribute}" for owner, attribute in reads(text)}
