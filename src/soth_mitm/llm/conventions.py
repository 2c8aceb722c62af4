"""A `ModelCall` in the names of OpenTelemetry's conventions for generative AI (semantic-conventions-genai, 2026, "Development")."""

from soth_mitm.llm.model_call import ModelCall
from soth_mitm.llm.recognition import authority_of

AttributeValue = str | int | float | bool | list[str]


def span_name(call: ModelCall) -> str:
    """Return the name of the span: `{operation} {model asked for}`, or the operation alone."""
    return f"{call.operation} {call.model_asked}" if call.model_asked else call.operation


def span_attributes(call: ModelCall) -> dict[str, AttributeValue]:
    """Return the attributes of a client's span for `call`. What is not known has none; texts and arguments are never among them.

    Times are in seconds. Counts of input include what came from a cache, counts of output include reasoning, as the conventions want it.
    """
    tokens = call.tokens
    found: dict[str, AttributeValue | None] = {
        "gen_ai.operation.name": call.operation,
        "gen_ai.provider.name": call.provider,
        "gen_ai.request.model": call.model_asked,
        "gen_ai.request.stream": call.streamed,
        "gen_ai.response.model": call.model_answered,
        "gen_ai.response.id": call.response_id,
        "gen_ai.response.finish_reasons": list(call.stops) or None,
        "gen_ai.response.time_to_first_chunk": call.first_token,
        "gen_ai.usage.input_tokens": tokens.input,
        "gen_ai.usage.output_tokens": tokens.output,
        "gen_ai.usage.cache_read.input_tokens": tokens.cache_read,
        "gen_ai.usage.cache_write.input_tokens": tokens.cache_write,
        "gen_ai.usage.reasoning.output_tokens": tokens.reasoning,
        "error.type": _error_type(call),
    }
    if call.request is not None:
        host, port = authority_of(call.request)
        found["server.address"] = host or None
        found["server.port"] = port or None
    return {name: value for name, value in found.items() if value is not None}


def _error_type(call: ModelCall) -> str | None:
    """Return one of few words, as a label has to be: the status, `cut`, or that the provider reported an error within an answer."""
    if call.outcome == "failed":
        return "provider_error" if 200 <= call.status < 300 else str(call.status)
    return "cut" if call.outcome == "cut" else None
