"""The preset `strict`: deny by default in one word.

`STRICT` says what the preset sets. A configuration with the preset that opens one of these keys all the same is refused, wherever the
key is written: a reader who sees `preset = "strict"` need not read on. To open one thing, leave the preset out and write the rest of the
keys down; docs/enforcement.md has them to copy.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from soth_mitm.config.schema import specs
from soth_mitm.destinations import parse_redirect
from soth_mitm.errors import InvalidConfigError

STRICT_ADDRESSES = ["metadata", "link_local"]
STRICT: dict[str, Any] = {
    "intercept_mode": "enforce",
    "interception.passthrough_unlisted": False,
    "interception.unknown_protocol": "block",
    "interception.check_names": "strict",
    "tls.learn_bypass": False,
    "upstream.verify_upstream_tls": True,
    "upstream.insecure_destinations": [],
    "upstream.denied_addresses": STRICT_ADDRESSES,
    "body.buffer_request_bodies": True,
    "body.incomplete": "refuse",
    "handler.failure_policy": "block",
}


def tighten(tree: msgspec.Struct) -> None:
    """Give each key of the preset that has its default the value of the preset; what was written otherwise is left for `verify_strict`."""
    known = specs(type(tree))
    for name, value in STRICT.items():
        spec = known[name]
        if spec.read(tree) == spec.default:
            spec.write(tree, list(value) if isinstance(value, list) else value)


def verify_strict(tree: msgspec.Struct, allowed_addresses: Iterable[str], connect_to: Iterable[str]) -> None:
    """Raise `InvalidConfigError` with the first key that opens what the preset closes."""
    for text in connect_to:
        if parse_redirect(text)[1].is_exposed:
            raise InvalidConfigError(
                "upstream.connect_to",
                f'`{text}` leads to a plain HTTP server, which `preset = "strict"` allows at a loopback address only, such as '
                "`http://127.0.0.1:8000`; what is sent elsewhere may cross a network in clear",
            )
    for text in allowed_addresses:
        if text in STRICT_ADDRESSES:
            raise InvalidConfigError(
                "upstream.allowed_addresses", f'opens all of `{text}`, which `preset = "strict"` denies; list the addresses that are meant'
            )
    known = specs(type(tree))
    for name, value in STRICT.items():
        found = known[name].read(tree)
        # what is denied besides is its owner's; the address guard denies these under the preset whatever the list says
        if value is not STRICT_ADDRESSES and found != value:
            wanted = str(value).lower()
            raise InvalidConfigError(
                name,
                f'is {str(found).lower()}, which `preset = "strict"` does not allow; leave it at {wanted}, or leave the preset out '
                "and write its keys one by one (docs/enforcement.md)",
            )
