"""The configuration as text for people: commented TOML, and the page docs/configuration.md. Both are made from the tree."""

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import NODEFAULT

from soth_mitm.config.not_built import LATER_KEYS, NEVER
from soth_mitm.config.schema import ENVIRONMENT_PREFIX, Kind, Spec, entry_specs, sections, specs
from soth_mitm.config.sections import MAX_COUNT
from soth_mitm.config.tree import MitmConfig

_TOML_OPENING = f"""\
# soth-mitm configuration: every key with its default.
# Keys that start with "# " have no value unless set. Relative paths are relative to the working directory; "~" is the user's home.
# The environment overrides this file: {ENVIRONMENT_PREFIX}BIND, {ENVIRONMENT_PREFIX}UPSTREAM__TIMEOUT_MS.
"""

_PAGE_OPENING = f"""\
# Configuration

<!-- Made from the fields of MitmConfig by soth_mitm.config.reference; change the text there. -->

A configuration is built in code, read from a TOML file, or both; the environment overrides the file.

```python
config = MitmConfig()
config.interception.destinations.append("api.example.com:443")

config = MitmConfig.from_file("soth-mitm.toml")
config = MitmConfig.from_mapping({{"body": {{"max_size_bytes": 1048576}}}})
```

`soth-mitm config --defaults` prints a TOML file with every key. An unknown key, a wrong type or a value out of range is an
`InvalidConfigError` that names the dotted key; nothing of a refused configuration is applied.

- **Environment.** `{ENVIRONMENT_PREFIX}KEY` and `{ENVIRONMENT_PREFIX}SECTION__KEY`: `{ENVIRONMENT_PREFIX}UPSTREAM__TIMEOUT_MS=5000`.
  Lists are separated by commas, tables are `name=path,name=path`, an empty value is none where none is allowed.
- **Times** are in milliseconds, sizes in bytes. Relative paths are relative to the working directory; `~` in a file is the user's home.
- **Destination patterns** are `host:port` or `[v6]:port`. `*` in the host stands for any characters, dots included; `*` as the port for any
  port. A pattern is anchored: `*.example.com:443` does not match `example.com`. Case, a trailing dot and the spelling of an international
  name make no difference. The most exact pattern answers: host and port, then host with any port, then those with `*` in the host.
- **Keys that do nothing**, because this build does not have what they are about or because another key turns it off, are named in one
  warning at the start.
- **Reload.** `handle.reload(config)` changes every key but those marked "needs a restart".
"""


def default_toml() -> str:
    """Return a TOML document with every key, its meaning and its default; read back, it is `MitmConfig()`."""
    lines = [_TOML_OPENING, *_toml_keys("")]
    lines += [line for name, doc in _sections() for line in _toml_section(name, doc)]
    return "\n".join(lines + [line for spec in _lists() for line in _toml_entry(spec)])


def reference_markdown() -> str:
    """Return the page docs/configuration.md."""
    parts = [_PAGE_OPENING, "## Top level\n", *_table(_specs_of(""))]
    for name, doc in _sections():
        parts += [f"\n## `[{name}]`\n", f"{doc}\n", *_table(_specs_of(name))]
    for spec in _lists():
        parts += [
            f"\n## `[[{spec.name}]]`\n",
            f"{_doc(spec.entry).partition(chr(10))[0]}\n",
            *_table(entry_specs(spec.entry, spec.name).values()),
        ]
    return "\n".join(parts) + "\n"


def toml_value(value: Any) -> str:
    """Spell a plain value as TOML."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{toml_value(name)} = {toml_value(inner)}" for name, inner in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(inner) for inner in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _sections() -> Iterator[tuple[str, str]]:
    for name, section in sections(MitmConfig).items():
        yield name, _doc(section)


def _lists() -> Iterator[Spec]:
    return (spec for spec in specs(MitmConfig).values() if spec.kind is Kind.ENTRIES)


def _doc(thing: object) -> str:
    return (thing.__doc__ or "").strip()


def _specs_of(section: str) -> list[Spec]:
    return [spec for spec in specs(MitmConfig).values() if spec.section == section]


def _toml_section(name: str, doc: str) -> Iterator[str]:
    yield f"\n[{name}]"
    yield f"# {doc}\n"
    yield from _toml_keys(name)


def _toml_entry(spec: Spec) -> Iterator[str]:
    """Yield one table as a comment: written out with the default it could not be added to."""
    yield from textwrap.wrap(_meaning(spec), 120, initial_indent="\n# ", subsequent_indent="# ")
    yield f"# [[{spec.name}]]\n#"
    example = spec.plain(spec.key.example)[0]
    for each in entry_specs(spec.entry, spec.name).values():
        yield from textwrap.wrap(_meaning(each), 120, initial_indent="# ", subsequent_indent="# ")
        yield f"# {each.field} = {toml_value(example[each.field])}\n#"


def _toml_keys(section: str) -> Iterator[str]:
    for spec in _specs_of(section):
        if spec.kind is Kind.ENTRIES:
            continue
        yield from textwrap.wrap(_meaning(spec), 120, initial_indent="# ", subsequent_indent="# ")
        default = spec.plain(spec.default)
        if default is None:
            yield f"# Default: {spec.key.unset}."
            yield f"# {spec.field} = {toml_value(spec.key.example)}\n"
        elif default:
            yield f"{spec.field} = {toml_value(default)}\n"
        else:
            if spec.key.example is not None:
                yield f"# For example: {spec.field} = {toml_value(spec.key.example)}"
            yield f"{spec.field} = {toml_value(default)}\n"


def _table(keys: Iterable[Spec]) -> Iterator[str]:
    yield "| Key | Default | Meaning |"
    yield "| --- | --- | --- |"
    for spec in keys:
        shown = _shown_default(spec)
        example = "" if spec.key.example is None else f" Example: `{toml_value(spec.plain(spec.key.example))}`."
        yield f"| `{spec.field}` | {shown} | {_meaning(spec)}{example} |"


def _shown_default(spec: Spec) -> str:
    if spec.default is NODEFAULT:
        return "needed"
    default = spec.plain(spec.default)
    return f"none: {spec.key.unset}" if default is None else f"`{toml_value(default)}`"


def _meaning(spec: Spec) -> str:
    """Return the sentence of a key with what may be written, where the type alone does not say it."""
    text = spec.key.doc
    low, high = spec.key.minimum, spec.key.maximum
    if spec.kind is Kind.CHOICE:
        text += f" One of {', '.join(toml_value(choice) for choice in spec.choices)}."
    elif low is not None and high is not None and high < MAX_COUNT:
        text += f" {low} to {high}."
    elif low is not None and low > 1:
        text += f" At least {low}."
    if spec.key.frozen:
        text += " Needs a restart."
    if spec.name in NEVER:
        text += f" No effect: {NEVER[spec.name]}."
    elif spec.name in LATER_KEYS:
        text += " Not in effect yet."
    return text
