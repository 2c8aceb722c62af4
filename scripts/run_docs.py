"""Write docs/api.md from the code, read without importing it: what stands in `soth_mitm.__all__`, by signature and docstring."""

import re
import sys
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/api.md"

INTRODUCTION = """# API

Every public name of `soth_mitm`, `soth_mitm.llm` and `soth_mitm.observe`. `scripts/docs` makes this page from the code; editors show
the same texts.
[Configuration](configuration.md) has the keys of `MitmConfig` and its sections, [Enforcement](enforcement.md) what a gate can rely on.
"""

# What a reader looks for, in the order in which a program meets it. A public name is in one of these; tests/meta/test_docs.py sees to it.
SECTIONS: dict[str, tuple[str, ...]] = {
    "Build and run a proxy": (
        "MitmProxyBuilder",
        "MitmProxy",
        "MitmProxyHandle",
        "ThreadedHandle",
        "MitmConfig",
        "ProxyMetrics",
        "TlsBypass",
        "new_event_loop",
    ),
    "Handle traffic": (
        "InterceptHandler",
        "Chain",
        "HandlerDecision",
        "Upstream",
        "ConnectDecision",
        "ConnectTarget",
        "ResponseDecision",
        "ChunkDecision",
        "SseEvent",
    ),
    "Messages": ("RawRequest", "RawResponse", "StreamChunk", "FrameKind", "Headers"),
    "Credentials": ("Credential", "Secret", "CredentialSource"),
    "Connections": ("ConnectionMeta", "SocketFamily", "TcpV4", "TcpV6", "UnixDomain", "ProcessInfo", "TlsInfo"),
    "The CA and who trusts it": (
        "CertificateAuthority",
        "generate_ca",
        "load_ca",
        "load_ca_from_files",
        "load_ca_from_pkcs12",
        "install_ca_system_trust",
        "uninstall_ca_system_trust",
        "is_ca_trusted",
        "ca_trust_status",
        "TrustReport",
        "TrustFiles",
        "write_trust_files",
        "client_environment",
    ),
    "Errors": (
        "MitmError",
        "InvalidConfigError",
        "DecisionError",
        "DecisionValueError",
        "EventSinkError",
        "DecisionTypeError",
        "BindError",
        "ShutdownTimeoutError",
        "CaError",
        "CaMaterialError",
        "CaPermissionError",
        "CaOperationError",
        "CaUnsupportedError",
        "WireError",
        "ConnectFailedError",
        "StageTimeoutError",
        "TlsFailedError",
    ),
}

# The same of modules that are imported by themselves.
MODULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "Calls of models: `soth_mitm.llm`": (
        "llm",
        (
            "LlmObserver",
            "ModelCall",
            "Tokens",
            "ToolCall",
            "Turn",
            "Part",
            "Recogniser",
            "Recognised",
            "AnswerReader",
            "span_name",
            "span_attributes",
        ),
    ),
    "What the proxy saw: `soth_mitm.observe`": (
        "observe",
        (
            *("EventSink", "SinkInfo", "NdjsonSink", "EventLog", "comparable", "HarSink", "OtelSink", "SqliteSink", "Masker"),
            *("har_document", "har_entry", "HarFlow", "HarContent"),
            *("FlowEvent", "FlowEventKind", "FlowUpdate", "FlowRecord", "FlowKind", "Timings", "Piece", "FlowMessage", "Fields"),
        ),
    ),
}

PUBLIC = frozenset(name for names in (*SECTIONS.values(), *(names for _, names in MODULES.values())) for name in names)

# Objects of these come from calls of others, so their constructors are not shown; a configuration's keys have a page of their own.
NOT_CONSTRUCTED = (
    "MitmProxy",
    "MitmProxyHandle",
    "ThreadedHandle",
    "TlsBypass",
    "ProxyMetrics",
    "TrustReport",
    "CertificateAuthority",
    "ModelCall",
    "Tokens",
    "ToolCall",
    "Turn",
    "Part",
    "Recognised",
    "SinkInfo",
    "FlowEvent",
    "FlowUpdate",
    "FlowRecord",
    "Timings",
    "Piece",
    "FlowMessage",
    "HarFlow",
    "HarContent",
)
KEYS_ELSEWHERE = ("MitmConfig", "Credential")


PREFIXES = {str(griffe.ParameterKind.var_positional): "*", str(griffe.ParameterKind.var_keyword): "**"}


def public_names(package: griffe.Module) -> list[str]:
    """Return `__all__`, sorted."""
    return sorted(str(name) for name in package.exports or ())


def unplaced(names: list[str]) -> list[str]:
    """Return the public names that no section lists, and the listed ones that are not public."""
    listed = [name for section in SECTIONS.values() for name in section]
    return sorted(set(names) ^ set(listed)) + sorted(name for name in set(listed) if listed.count(name) > 1)


def signature(function: griffe.Function, name: str) -> str:
    """Return the call as a person writes it, without `self`."""
    parts: list[str] = []
    starred = False
    for parameter in function.parameters:
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is griffe.ParameterKind.keyword_only and not starred:
            parts.append("*")
            starred = True
        prefix = PREFIXES.get(str(parameter.kind), "")
        starred = starred or prefix == "*"
        text = f"{prefix}{parameter.name}"
        if parameter.annotation is not None:
            text += f": {parameter.annotation}"
        if parameter.default is not None and not prefix:
            text += f" = {parameter.default}" if parameter.annotation is not None else f"={parameter.default}"
        parts.append(text)
    returned = "" if function.returns is None or str(function.returns) == "None" else f" -> {function.returns}"
    awaited = "await " if "async" in function.labels else ""
    return f"{awaited}{name}({', '.join(parts)}){returned}"


def docstring(item: griffe.Object | griffe.Alias) -> str:
    """Return the docstring as Markdown: hanging lines of a labelled paragraph are kept as they are."""
    return item.docstring.value.strip() if item.docstring else ""


def members(item: griffe.Class) -> list[griffe.Object | griffe.Alias]:
    """Return the members that a user sees; those of a public base are not repeated."""
    classes = [item, *hidden_bases(item)]
    return [member for each in classes for name, member in each.members.items() if not name.startswith("_")]


def hidden_bases(item: griffe.Class) -> list[griffe.Class]:
    """Return the bases that have no entry of their own, though they are ours."""
    bases = [base for base in item.resolved_bases if isinstance(base, griffe.Class)]
    return [base for base in bases if base.name not in PUBLIC and base.path.startswith("soth_mitm.")]


def write_member(owner: str, member: griffe.Object | griffe.Alias, lines: list[str]) -> None:
    """Append one member: its call or its type, then its docstring."""
    if member.is_function:
        static = "staticmethod" in member.labels or "classmethod" in member.labels
        head = signature(member.final_target if member.is_alias else member, f"{owner}.{member.name}" if static else member.name)  # type: ignore[arg-type, union-attr]
    else:
        annotation = getattr(member, "annotation", None)
        head = member.name if annotation is None else f"{member.name}: {annotation}"
    text = docstring(member)
    lines += [f"- `{head}`" + (f"  \n  {indented(text)}" if text else "")]


def indented(text: str) -> str:
    """Indent all lines but the first, so that they stay in their list item."""
    return text.replace("\n", "\n  ")


def write_item(name: str, item: griffe.Object | griffe.Alias, lines: list[str]) -> None:
    """Append a class, function or type alias."""
    lines += ["", f"### `{name}`", ""]
    if item.is_class:
        target: griffe.Class = item.final_target if item.is_alias else item  # type: ignore[assignment, union-attr]
        unnamed = ("object", "Struct", "NamedTuple", *(base.name for base in hidden_bases(target)))
        bases = [str(base) for base in target.bases if str(base) not in unnamed]
        if bases:
            lines += [f"Is a {', '.join(f'`{base}`' for base in bases)}.", ""]
        constructor = target.members.get("__init__")
        if name not in NOT_CONSTRUCTED and isinstance(constructor, griffe.Function) and "Never" not in str(constructor.parameters):
            lines += ["```text", signature(constructor, name), "```", ""]
        lines += [docstring(item), ""]
        for member in members(target):
            if member.is_function or name not in KEYS_ELSEWHERE:
                write_member(name, member, lines)
    elif item.is_function:
        lines += ["```text", signature(item.final_target if item.is_alias else item, name), "```", "", docstring(item)]  # type: ignore[arg-type, union-attr]
    else:
        lines += [f"`{getattr(item, 'value', '')}`", "", docstring(item)]


def page() -> str:
    """Return the whole page."""
    package = griffe.load("soth_mitm", search_paths=[str(ROOT / "src")], resolve_aliases=True)
    assert isinstance(package, griffe.Module)
    wrong = unplaced(public_names(package))
    if wrong:
        raise SystemExit(f"scripts/run_docs.py: SECTIONS and soth_mitm.__all__ differ in: {', '.join(wrong)}")
    lines = [INTRODUCTION]
    for title, names in SECTIONS.items():
        lines += ["", f"## {title}"]
        for name in names:
            write_item(name, package[name], lines)
    for title, (module_name, names) in MODULES.items():
        module = package[module_name]
        if set(public_names(module)) != set(names):
            raise SystemExit(f"scripts/run_docs.py: MODULES and soth_mitm.{module_name}.__all__ differ")
        lines += ["", f"## {title}"]
        for name in names:
            write_item(name, module[name], lines)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit("scripts/docs takes no arguments")
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
