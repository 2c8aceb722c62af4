"""Fill a configuration tree from a mapping, a TOML file or the environment.

Unknown keys are refused with the nearest known one. Each key is verified by itself; rules that concern several keys are the tree's own.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from soth_mitm.config.schema import ENVIRONMENT_PREFIX, Spec, sections, specs
from soth_mitm.errors import InvalidConfigError

_ALL_KEYS = "`soth-mitm config --defaults` lists all keys"


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the document at `path`; `InvalidConfigError` names the file, and the line where the syntax is at fault."""
    try:
        return tomllib.loads(Path(path).read_bytes().decode("utf-8"))
    except OSError as exc:
        raise InvalidConfigError("", f"cannot read {os.fspath(path)}: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        line = exc.object.count(b"\n", 0, exc.start) + 1
        raise InvalidConfigError("", f"{os.fspath(path)} is not UTF-8 (at line {line})") from exc
    except tomllib.TOMLDecodeError as exc:
        raise InvalidConfigError("", f"{os.fspath(path)}: {exc}") from exc


def apply_mapping(tree: msgspec.Struct, mapping: Mapping[str, Any]) -> None:
    """Set every key of `mapping`, sections being mappings themselves, on `tree`."""
    known, known_sections = specs(type(tree)), sections(type(tree))
    for name, value in mapping.items():
        if name in known_sections:
            if not isinstance(value, Mapping):
                raise InvalidConfigError(name, f"is a section; write its keys below `[{name}]`")
            for field, inner in value.items():
                spec = _find(known, f"{name}.{field}")
                spec.write(tree, spec.from_document(inner))
        elif isinstance(value, Mapping) and name not in known:
            nearest = difflib.get_close_matches(str(name), known_sections, n=1)
            raise InvalidConfigError(str(name), f"unknown section; {f'did you mean `[{nearest[0]}]`?' if nearest else _ALL_KEYS}")
        else:
            spec = _find(known, str(name))
            spec.write(tree, spec.from_document(value))


def apply_environment(tree: msgspec.Struct, environ: Mapping[str, str]) -> None:
    """Set on `tree` what the variables `SOTH_MITM__KEY` and `SOTH_MITM__SECTION__KEY` say; others are not looked at."""
    known = specs(type(tree))
    for variable, text in sorted(environ.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).replace("__", ".").lower()
        if name not in known:
            nearest = nearest_key(known, name)
            hint = f"did you mean `{known[nearest].environment_name}`?" if nearest else _ALL_KEYS
            raise InvalidConfigError(name, f"unknown key in the environment variable {variable}; {hint}")
        try:
            value = known[name].from_text(text)
        except InvalidConfigError as exc:
            raise InvalidConfigError(exc.key, f"{exc.message} (in the environment variable {variable})") from None
        known[name].write(tree, value)


def preset_of(environ: Mapping[str, str]) -> str:
    """Return the preset that the environment asks for, empty if none."""
    return environ.get(f"{ENVIRONMENT_PREFIX}PRESET", "").strip()


def nearest_key(known: Mapping[str, Spec], name: str) -> str | None:
    """Return the known dotted key that `name` most likely means: the same key in another section, else a similar spelling."""
    field = name.rpartition(".")[2]
    same_field = [candidate for candidate, spec in known.items() if spec.field == field]
    if same_field:
        return difflib.get_close_matches(name, same_field, n=1, cutoff=0.0)[0]
    if similar := difflib.get_close_matches(name, known, n=1, cutoff=0.75):
        return similar[0]
    by_field = {spec.field: candidate for candidate, spec in known.items()}
    return next((by_field[match] for match in difflib.get_close_matches(field, by_field, n=1, cutoff=0.75)), None)


def _find(known: Mapping[str, Spec], name: str) -> Spec:
    if name in known:
        return known[name]
    nearest = nearest_key(known, name)
    hint = f"did you mean `{nearest}`?" if nearest else _ALL_KEYS
    raise InvalidConfigError(name, f"unknown key; {hint}")
