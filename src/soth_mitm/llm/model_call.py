"""What is told of a call of a model: `ModelCall`, its `Tokens`, and each `ToolCall` in it."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from soth_mitm._dataplane.http.messages import RawRequest
from soth_mitm.llm.model_request import Turn, read_model_request

Missing = Literal["not_requested", "cut", "error", "not_shown", "absent"]
Finish = Literal["stop", "length", "tool_calls", "filtered", "error"]
Outcome = Literal["answered", "failed", "cut"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens as the provider counted them. None: the provider did not say. Zero: it said zero.

    The same for all providers: what came from a cache is part of `input`, and reasoning is part of `output`, whether a provider adds
    them itself or not.
    """

    input: int | None = None
    """Of the prompt, with what came from a cache and what was written to one."""
    output: int | None = None
    """Of the answer, with its reasoning. None for embeddings, which have no answer of tokens."""
    cache_read: int | None = None
    """Part of `input`: taken from the provider's cache."""
    cache_write: int | None = None
    """Part of `input`: written to the provider's cache."""
    reasoning: int | None = None
    """Part of `output`."""
    missing: Missing | None = None
    """Why there is no count at all; None if there is one.

    `not_requested`: a stream of OpenAI's chat format whose client did not set `stream_options.include_usage`. `cut`: the answer ended
    before its counts. `error`: the call failed. `not_shown`: the answer is longer than what is read of one (`ModelCall.truncated`).
    `absent`: the answer is whole, and has no counts.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool that the model asked for."""

    id: str | None
    """The provider's name for this call; None where it gives none (Ollama, Gemini)."""
    name: str
    """The tool's name, `""` if it was not said."""
    arguments: str
    """JSON as the model wrote it, joined from its pieces; for a custom tool of OpenAI any text. `""` if there was none."""
    complete: bool
    """Whether the arguments are all that the model wrote: neither cut nor over the limit."""
    by_provider: bool = False
    """Whether the provider runs the tool itself (Anthropic's server tools, MCP servers that it was told of), and not the client."""

    def parsed(self) -> Any:
        """Return the arguments as an object; no arguments are `{}`. `ValueError` if they are no JSON, as models sometimes write."""
        try:
            return json.loads(self.arguments) if self.arguments.strip() else {}
        except RecursionError:
            raise ValueError("the arguments are nested too deep") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """One call of a model, after its end. It does not change.

    What was not observed is None, never zero. Texts are as the peers chose them: escape them where they are shown.
    """

    provider: str
    """Which API was called, in the words of OpenTelemetry's GenAI conventions: `openai`, `azure.ai.openai`, `anthropic`, `gcp.gemini`,
    `gcp.vertex_ai`, `aws.bedrock`, `mistral_ai`, `groq`, `deepseek`, `x_ai`, `cohere`, `moonshot_ai`, `perplexity`; also `openrouter`,
    `ollama`, `vllm`, and for other servers `openai-compatible`, `anthropic-compatible`, `gemini-compatible`; or what
    `LlmObserver(endpoints=...)` says of the host."""
    family: str
    """The format: `openai.chat`, `openai.responses`, `openai.completions`, `openai.embeddings`, `anthropic.messages`, `gemini.generate`,
    `ollama.chat`, `ollama.generate`, `bedrock.converse`."""
    operation: str
    """`chat`, `generate_content`, `text_completion` or `embeddings`, as in the GenAI conventions."""
    model_asked: str | None
    """The model that the request names, in its body or in its path; a deployment of Azure where only that is named."""
    model_answered: str | None
    """The model that the answer names."""
    response_id: str | None
    """The provider's name for the answer."""
    streamed: bool
    """Whether the answer came as a stream of events."""
    status: int
    """HTTP status of the answer."""
    tokens: Tokens
    """What the provider counted."""
    tools: tuple[ToolCall, ...]
    """The tools that the model asked for, in order, those of all choices."""
    text: str
    """The answer's text, refusals included, of its first choice; as much as the limit allows (`truncated`)."""
    reasoning: str
    """The reasoning that was shown, of the first choice, or its summary."""
    choices: int
    """How many alternatives the answer has: 1 unless the client asked for more, 0 if none came."""
    stops: tuple[str, ...]
    """Why each choice ended, in the provider's word, such as `end_turn`; empty if none was said."""
    finish: Finish | None
    """The same of the first choice, in one word for all providers: `stop`, `length`, `tool_calls`, `filtered` or `error`; else None."""
    first_token: float | None
    """Seconds from the request's head to the first text, reasoning or tool of a stream. None for a plain answer, or if none came."""
    duration: float | None
    """Seconds from the request's head to the answer's end. None if the begin is not known."""
    error: str | None
    """What the provider said went wrong, with its type, at most 1000 characters; of an answer without words, `HTTP 502`. None: nothing."""
    complete: bool | None
    """Whether the answer's own end came: the last event of its format, or all of a plain answer. False: it was cut. None: it is not known,
    since the answer was not shown whole (`truncated`)."""
    truncated: bool
    """Whether something was over a limit and is not shown: text, arguments of tools, an event, or a body over `body.max_size_bytes`."""
    problems: tuple[str, ...]
    """What was wrong with the request or the answer, as far as it could not be read, in words; at most 8."""
    cost: float | None
    """What the provider says that the call cost, in its unit (OpenRouter: credits, which are US dollars). Never computed."""
    flow_id: int = 0
    """The number of the request and its response, as in `RawRequest.flow_id`."""
    connection_id: UUID | None = None
    """The client's connection. None where it is not known."""
    request: RawRequest | None = field(default=None, repr=False, compare=False)
    """The request, with its body and its `connection_meta`. It is not part of `as_dict()`."""

    @property
    def model(self) -> str | None:
        """The model that answered, or else the one that was asked."""
        return self.model_answered or self.model_asked

    @property
    def stop(self) -> str | None:
        """Why the first choice ended, in the provider's word."""
        return self.stops[0] if self.stops else None

    @property
    def outcome(self) -> Outcome:
        """`failed`: the provider reported an error. `cut`: the answer ended before its end (`complete`). Else `answered`."""
        if self.error is not None:
            return "failed"
        return "cut" if self.complete is False else "answered"

    def messages(self) -> tuple[Turn, ...]:
        """Return what the request asked, in one shape for all formats, instructions first. Empty if its body is not known, or no request.

        The body is read anew each time, which takes about 10 ms per megabyte.
        """
        return () if self.request is None else read_model_request(self.family, self.request.body).turns

    def as_dict(self) -> dict[str, Any]:
        """Return everything but `request` in values that JSON has; `model`, `stop` and `outcome` included."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name not in ("tokens", "tools", "connection_id", "request")}
        return plain | {
            "tokens": {name: getattr(self.tokens, name) for name in Tokens.__slots__},
            "tools": [{name: getattr(tool, name) for name in ToolCall.__slots__} for tool in self.tools],
            "stops": list(self.stops),
            "problems": list(self.problems),
            "connection_id": None if self.connection_id is None else str(self.connection_id),
            "model": self.model,
            "stop": self.stop,
            "outcome": self.outcome,
        }
