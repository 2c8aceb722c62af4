"""Which requests are calls of a model: by the end of their path and by what their body asks for. The host only names the provider."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from soth_mitm._dataplane.http.messages import RawRequest
from soth_mitm.addresses import parse_authority
from soth_mitm.destinations import DestinationMap, DestinationPattern
from soth_mitm.llm import anthropic, bedrock, gemini, ollama, openai_chat, openai_responses
from soth_mitm.llm.draft import MOST_IN_NAME, Draft
from soth_mitm.llm.json_text import decoded, mended

Read = Callable[[Draft, str, dict[str, Any]], None]
ReadWhole = Callable[[Draft, dict[str, Any]], None]


class Family(NamedTuple):
    """A format: how its calls are recognised, and who reads their answers."""

    name: str
    operation: str
    fields: tuple[str, ...]
    """Of which the body of a request has one."""
    is_plain: bool
    """Whether the path alone says it, on whatever host."""
    provider: str
    """Who is asked, if neither the host nor the answer says."""
    read_event: Read
    read_answer: ReadWhole


_CHAT = Family("openai.chat", "chat", ("messages",), True, "openai-compatible", openai_chat.read_event, openai_chat.read_answer)
_RESPONSES = Family(
    "openai.responses",
    "chat",
    ("input", "prompt", "previous_response_id", "conversation"),
    False,
    "openai-compatible",
    openai_responses.read_event,
    openai_responses.read_answer,
)
_COMPLETIONS = Family(
    "openai.completions",
    "text_completion",
    ("prompt",),
    False,
    "openai-compatible",
    openai_chat.read_event,
    openai_chat.read_answer,
)
_EMBEDDINGS = Family(
    "openai.embeddings", "embeddings", ("input",), False, "openai-compatible", openai_chat.read_event, openai_chat.read_answer
)
_ANTHROPIC = Family("anthropic.messages", "chat", ("messages",), True, "anthropic-compatible", anthropic.read_event, anthropic.read_answer)
_GEMINI = Family("gemini.generate", "generate_content", ("contents",), True, "gemini-compatible", gemini.read_event, gemini.read_answer)
_OLLAMA_CHAT = Family("ollama.chat", "chat", ("messages",), False, "ollama", ollama.read_event, ollama.read_answer)
_OLLAMA_GENERATE = Family("ollama.generate", "text_completion", ("prompt",), False, "ollama", ollama.read_event, ollama.read_answer)
_CONVERSE = Family("bedrock.converse", "chat", ("messages",), True, "aws.bedrock", bedrock.read_event, bedrock.read_answer)

# What the path ends with, the query and a slash at its end left out; in the order in which they are tried. `model` is where it is named.
_PATHS: tuple[tuple[re.Pattern[str], Family], ...] = tuple(
    (re.compile(f"{pattern}$"), family)
    for pattern, family in (
        (r"(?:/deployments/(?P<model>[^/]+))?/chat/completions", _CHAT),
        (r"(?:/deployments/(?P<model>[^/]+))?/completions", _COMPLETIONS),
        (r"(?:/deployments/(?P<model>[^/]+))?/embeddings", _EMBEDDINGS),
        (r"/responses", _RESPONSES),
        (r"/v1/messages", _ANTHROPIC),
        (r"/publishers/anthropic/models/(?P<model>[^/]+):(?:rawPredict|streamRawPredict)", _ANTHROPIC),
        (r"/publishers/mistralai/models/(?P<model>[^/]+):(?:rawPredict|streamRawPredict)", _CHAT),
        (r"/(?P<model>[^/]+):(?:generateContent|streamGenerateContent)", _GEMINI),
        (r"/api/chat", _OLLAMA_CHAT),
        (r"/api/generate", _OLLAMA_GENERATE),
        (r"/model/(?P<model>[^/]+)/converse(?:-stream)?", _CONVERSE),
        (r"/model/(?P<model>[^/]+)/invoke(?:-with-response-stream)?", _ANTHROPIC),
    )
)
# one look at the end of a path says that it is none of these
_ENDS = (
    "/completions",
    "/embeddings",
    "/responses",
    "/v1/messages",
    "Predict",
    "enerateContent",
    "/api/chat",
    "/api/generate",
    "/converse",
    "/converse-stream",
    "/invoke",
    "/invoke-with-response-stream",
)

_HOSTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), provider)
    for pattern, provider in (
        (r"(?:.*\.)?api\.openai\.com|chatgpt\.com", "openai"),
        (r".*\.(?:openai\.azure\.com|cognitiveservices\.azure\.com)", "azure.ai.openai"),
        (r".*\.(?:services|models|inference)\.ai\.azure\.com", "azure.ai.inference"),
        (r"(?:.*\.)?api\.anthropic\.com", "anthropic"),
        (r"generativelanguage\.googleapis\.com", "gcp.gemini"),
        (r"(?:.*[.-])?aiplatform\.googleapis\.com", "gcp.vertex_ai"),
        (r"(?:.*\.)?bedrock-runtime(?:-fips)?\..*", "aws.bedrock"),
        (r"api\.mistral\.ai|codestral\.mistral\.ai", "mistral_ai"),
        (r"api\.groq\.com", "groq"),
        (r"api\.deepseek\.com", "deepseek"),
        (r"(?:.*\.)?api\.x\.ai", "x_ai"),
        (r"api\.cohere\.(?:ai|com)", "cohere"),
        (r"api\.moonshot\.(?:ai|cn)", "moonshot_ai"),
        (r"api\.perplexity\.ai", "perplexity"),
        (r"(?:.*\.)?openrouter\.ai", "openrouter"),
    )
)
_OLLAMA_PORT = 11434
# bytes of a request's body that are read a second time, when the quick and strict way does not read it
LONGEST_BODY = 1 << 20


def may_be_call(method: str, path: str) -> bool:
    """Tell whether method and path are those of a call of a model, so that the rest of a request is worth a look."""
    return method == "POST" and path.partition("?")[0].rstrip("/").endswith(_ENDS)


class _Body(msgspec.Struct):
    """What is read of a request's body; the rest is skipped, and its long texts are not made."""

    model: Any = None
    stream_options: Any = None
    messages: msgspec.Raw = msgspec.Raw()
    contents: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    previous_response_id: msgspec.Raw = msgspec.Raw()
    conversation: msgspec.Raw = msgspec.Raw()
    anthropic_version: msgspec.Raw = msgspec.Raw()


_read_body = msgspec.json.Decoder(_Body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """A request that is a call of a model."""

    family: Family
    """The format, by `family.name` and `family.operation`."""
    provider: str
    """Who is asked, as far as host, port and path say."""
    is_known_host: bool
    """Whether the host said who the provider is, so that the answer does not."""
    model: str | None
    """The model that is asked for."""
    asked_for_usage: bool | None
    """Whether the client asked for counts in a stream of OpenAI's chat format; None if that is not known, or needs no asking."""
    problems: tuple[str, ...]
    """Why the request's body was not read, in words."""


class Recogniser:
    """Finds the calls of models among requests.

    `endpoints` names further hosts: destination patterns, and the provider that is told of calls to them. `ValueError` says what is wrong
    with one.
    """

    def __init__(self, endpoints: Mapping[str, str] | None = None) -> None:
        entries = []
        for text, provider in (endpoints or {}).items():
            if not isinstance(provider, str) or not provider:
                raise ValueError(f"endpoints: `{text}` has no provider; write its name, such as `openai-compatible` or `vllm`")
            try:
                entries.append((DestinationPattern.parse(text), provider))
            except ValueError as error:
                raise ValueError(f"endpoints: `{text}` {error}") from None
        self._endpoints = DestinationMap(entries)

    def recognise(self, request: RawRequest) -> Recognised | None:
        """Return what `request` asks which model for, or None if it is no call of one. Its body is looked at only if its path fits."""
        if not may_be_call(request.method, request.path):
            return None
        path = request.path.partition("?")[0].rstrip("/")
        for pattern, family in _PATHS:
            match = pattern.search(path)
            if match is not None:
                return self._judge(request, family, match.groupdict().get("model"))
        return None

    def _judge(self, request: RawRequest, family: Family, model_in_path: str | None) -> Recognised | None:
        known = self._provider_of(request)
        problem = request.body_problem
        body, fault = _Body(), None
        if problem is None:
            body, fault = _body_of(request.body)
        is_seen = problem is None and fault is None
        has_fields = is_seen and any(getattr(body, name) for name in family.fields)
        if is_seen and not has_fields and known is None:
            return None
        if not is_seen and known is None and not family.is_plain:
            return None
        if family is _ANTHROPIC and "/model/" in request.path and not _is_anthropic(model_in_path, body):
            return None
        options = body.stream_options if isinstance(body.stream_options, dict) else {}
        model = body.model if isinstance(body.model, str) else unquote(model_in_path) if model_in_path else None
        has_to_ask = is_seen and family.read_event is openai_chat.read_event
        problems = [] if problem is None else [f"the request's body was not seen whole: {problem}"]
        if fault is not None:
            problems.append(f"the request's body is {fault}")
        provider = known or ("ollama" if authority_of(request)[1] == _OLLAMA_PORT else family.provider)
        return Recognised(
            family=family,
            provider=provider,
            is_known_host=known is not None,
            model=mended(model[:MOST_IN_NAME]) if model else None,
            asked_for_usage=options.get("include_usage") is True if has_to_ask else None,
            problems=tuple(problems),
        )

    def _provider_of(self, request: RawRequest) -> str | None:
        host, port = authority_of(request)
        given = self._endpoints.get(host, port)
        if given is not None:
            return given
        return next((provider for pattern, provider in _HOSTS if pattern.fullmatch(host)), None)


def authority_of(request: RawRequest) -> tuple[str, int]:
    """Return the host, normalised, and the port that a request names; no host where that cannot be read."""
    try:
        return parse_authority(request.authority, 443 if request.scheme == "https" else 80)
    except ValueError:
        return "", 0


def _body_of(content: bytes) -> tuple[_Body, str | None]:
    """Read a request's body, and say what is wrong with it."""
    try:
        return _read_body.decode(content), None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    if len(content) > LONGEST_BODY:
        return _Body(), "no JSON object, or text that cannot be encoded"
    try:
        found = decoded(content)
    except ValueError as error:
        return _Body(), str(error)
    if not isinstance(found, dict):
        return _Body(), "no object"
    body = _Body(model=found.get("model"), stream_options=found.get("stream_options"))
    for name in _Body.__struct_fields__:
        if isinstance(getattr(body, name), msgspec.Raw) and name in found:
            setattr(body, name, msgspec.Raw(b"null"))
    return body, None


def _is_anthropic(model: str | None, body: _Body) -> bool:
    """Tell whether a model behind Bedrock's `invoke` speaks Anthropic's format; each maker has its own."""
    return "anthropic" in (model or "") or bool(body.anthropic_version)
