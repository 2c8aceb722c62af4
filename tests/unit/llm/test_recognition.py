"""Which requests are calls of a model, and of whom."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm import RawRequest
from soth_mitm.llm import Recogniser
from support.model_answers import ANSWERS, MESSAGES, Spoken

RECOGNISER = Recogniser()
CHAT = {"model": "m", "messages": MESSAGES}


def request(url: str, body: object = CHAT, method: str = "POST", **named: Any) -> RawRequest:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return RawRequest.build(method=method, url=url, body=data, **named)


@pytest.mark.parametrize("spoken", ANSWERS, ids=str)
@pytest.mark.parametrize("whole", [False, True])
def test_calls(spoken: Spoken, whole: bool) -> None:
    call = RECOGNISER.recognise(spoken.request(whole=whole))
    assert call is not None
    assert (call.family.name, call.model, call.problems) == (spoken.said["family"], spoken.said["model_asked"], ())


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.openai.com/v1/chat/completions", "openai"),
        ("https://eu.api.openai.com/v1/chat/completions", "openai"),
        ("https://API.OpenAI.com:443/v1/chat/completions", "openai"),
        ("https://corp.openai.azure.com/openai/deployments/x/chat/completions", "azure.ai.openai"),
        ("https://corp.services.ai.azure.com/models/chat/completions", "azure.ai.inference"),
        ("https://api.groq.com/openai/v1/chat/completions", "groq"),
        ("https://openrouter.ai/api/v1/chat/completions", "openrouter"),
        ("https://api.deepseek.com/chat/completions", "deepseek"),
        ("https://api.deepseek.com/anthropic/v1/messages", "deepseek"),
        ("https://api.mistral.ai/v1/chat/completions", "mistral_ai"),
        ("https://api.x.ai/v1/chat/completions", "x_ai"),
        ("https://api.perplexity.ai/chat/completions", "perplexity"),
        ("https://api.moonshot.cn/v1/chat/completions", "moonshot_ai"),
        ("https://api.cohere.ai/compatibility/v1/chat/completions", "cohere"),
        ("https://generativelanguage.googleapis.com/v1beta/openai/chat/completions", "gcp.gemini"),
        ("https://api.anthropic.com/v1/messages?beta=true", "anthropic"),
        ("https://bedrock-runtime.us-east-1.amazonaws.com/model/m/converse", "aws.bedrock"),
        ("https://vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com/model/m/converse-stream", "aws.bedrock"),
        ("http://localhost:11434/v1/chat/completions", "ollama"),
        ("http://localhost:11434/api/chat", "ollama"),
        ("http://localhost:8000/v1/chat/completions", "openai-compatible"),
        ("http://[::1]:8000/v1/chat/completions", "openai-compatible"),
        ("https://llm.corp.example/v1/messages", "anthropic-compatible"),
        # what only looks like one
        ("https://api.openai.com.example.org/v1/chat/completions", "openai-compatible"),
        ("https://notapi.openai.com.example/v1/chat/completions", "openai-compatible"),
        ("https://fakeapi.anthropic.com/v1/messages", "anthropic-compatible"),
    ],
)
def test_providers(url: str, provider: str) -> None:
    call = RECOGNISER.recognise(request(url))
    assert call is not None and call.provider == provider


@pytest.mark.parametrize(
    ("url", "body", "method"),
    [
        ("https://api.openai.com/v1/chat/completions", CHAT, "GET"),
        ("https://api.openai.com/v1/models", CHAT, "POST"),
        ("https://api.openai.com/v1/files", CHAT, "POST"),
        ("https://api.openai.com/v1/responses/resp_1/cancel", {}, "POST"),
        ("https://api.anthropic.com/v1/messages/count_tokens", CHAT, "POST"),
        ("https://api.anthropic.com/v1/messages/batches", {"requests": []}, "POST"),
        ("https://generativelanguage.googleapis.com/v1beta/models/g:countTokens", {"contents": []}, "POST"),
        ("https://bedrock-runtime.us-east-1.amazonaws.com/model/meta.llama3/invoke", {"prompt": "x"}, "POST"),
        # paths that others use as well
        ("https://forms.example.org/survey/responses", {"answers": [1]}, "POST"),
        ("https://shop.example.org/completions", {"q": "x"}, "POST"),
        ("https://chat.example.org/api/chat", {"text": "x"}, "POST"),
        ("https://chat.example.org/api/chat", b"text=x", "POST"),
        ("https://mail.example.org/v1/messages", {"to": "x", "subject": "y"}, "POST"),
        ("https://mail.example.org/v1/messages", [CHAT], "POST"),
    ],
)
def test_what_is_no_call(url: str, body: object, method: str) -> None:
    found = RECOGNISER.recognise(request(url, body, method))
    # a list is no body that is known, on a path that is plain
    assert found is None or (isinstance(body, list) and found.problems == ("the request's body is no object",))


def test_the_body_of_other_paths_is_not_decoded() -> None:
    """What would fail if it were."""

    class Other:
        method = "POST"
        path = "/v1/upload?x=/chat/completions"

        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"{name} was looked at")

    assert RECOGNISER.recognise(Other()) is None  # type: ignore[arg-type]


class TestEndpoints:
    def test_further_hosts(self) -> None:
        recogniser = Recogniser({"llm.corp.example:443": "vllm", "*.models.example:*": "corp"})
        for url, provider in (
            ("https://llm.corp.example/v1/chat/completions", "vllm"),
            ("https://LLM.corp.example:443/v1/chat/completions", "vllm"),
            ("https://llm.corp.example:8443/v1/chat/completions", "openai-compatible"),
            ("http://a.models.example:9/v1/messages", "corp"),
        ):
            call = recogniser.recognise(request(url))
            assert call is not None and call.provider == provider

    def test_it_goes_before_what_is_known(self) -> None:
        call = Recogniser({"api.openai.com:443": "mirror"}).recognise(request("https://api.openai.com/v1/chat/completions"))
        assert call is not None and call.provider == "mirror"

    def test_a_call_to_one_needs_no_evidence(self) -> None:
        url = "https://llm.corp.example/completions"
        broken = request(url, b"{")
        assert RECOGNISER.recognise(broken) is None
        call = Recogniser({"llm.corp.example:443": "corp"}).recognise(broken)
        assert call is not None and call.problems[0].startswith("the request's body is no JSON")

    @pytest.mark.parametrize(
        ("endpoints", "words"),
        [
            ({"llm.corp.example": "x"}, "endpoints: `llm.corp.example` has no port"),
            ({"https://llm.corp.example:443": "x"}, "endpoints: `https://llm.corp.example:443` is a URL"),
            ({"llm.corp.example:443": ""}, "endpoints: `llm.corp.example:443` has no provider"),
            ({"llm.corp.example:443": None}, "endpoints: `llm.corp.example:443` has no provider"),
        ],
    )
    def test_mistakes(self, endpoints: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            Recogniser(endpoints)


class TestBodies:
    def test_a_deployment_is_the_model_where_none_is_named(self) -> None:
        url = "https://corp.openai.azure.com/openai/deployments/our%20gpt/chat/completions?api-version=1"
        call = RECOGNISER.recognise(request(url, {"messages": MESSAGES}))
        assert call is not None and call.model == "our gpt"

    @pytest.mark.parametrize(
        ("named", "problem"),
        [
            ({"body_truncated": True}, "too_long"),
            ({"body_complete": False}, "late"),
            ({"conversation": True}, "conversation"),
            ({"headers": {"Content-Encoding": "gzip"}}, "undecodable"),
        ],
    )
    def test_a_body_that_is_not_seen(self, named: dict[str, Any], problem: str) -> None:
        for url in ("https://api.openai.com/v1/responses", "https://llm.corp.example/v1/chat/completions"):
            call = RECOGNISER.recognise(request(url, **named))
            assert call is not None and call.model is None and call.asked_for_usage is None
            assert call.problems == (f"the request's body was not seen whole: {problem}",)
        # nothing but the path says so
        assert RECOGNISER.recognise(request("https://forms.example.org/responses", **named)) is None

    def test_text_that_cannot_be_encoded(self) -> None:
        call = RECOGNISER.recognise(request("https://a.example/v1/chat/completions", b'{"model": "m\\ud83c", "messages": []}'))
        assert call is not None and call.model == "m\ufffd" and call.problems == ()

    @pytest.mark.parametrize("options", [None, {}, [], "x", {"include_usage": False}, {"include_usage": "yes"}])
    def test_whether_usage_was_asked_for(self, options: object) -> None:
        url = "https://a.example/v1/chat/completions"
        asked = RECOGNISER.recognise(request(url, CHAT | {"stream_options": {"include_usage": True}}))
        other = RECOGNISER.recognise(request(url, CHAT | {"stream_options": options}))
        assert asked is not None and other is not None
        assert (asked.asked_for_usage, other.asked_for_usage) == (True, False)

    def test_a_model_that_is_no_text(self) -> None:
        call = RECOGNISER.recognise(request("https://a.example/v1/chat/completions", CHAT | {"model": ["m"]}))
        assert call is not None and call.model is None


@given(
    st.sampled_from([spoken.path for spoken in ANSWERS]),
    st.binary(max_size=60)
    | st.dictionaries(st.sampled_from(["model", "messages", "input", "stream_options"]), st.none() | st.text() | st.floats()).map(
        lambda body: json.dumps(body).encode()
    ),
    st.sampled_from(["https://api.openai.com", "https://x.example:99", "http://[::1]:11434", "http://localhost."]),
)
def test_any_body_never_raises(path: str, body: bytes, host: str) -> None:
    RECOGNISER.recognise(request(host + path, body))
