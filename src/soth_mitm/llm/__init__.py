"""Calls of models: which model, how many tokens, which tools, how long it took, read from the traffic of six providers' formats.

>>> from soth_mitm.llm import LlmObserver
>>> handler = LlmObserver(lambda call: print(call.model, call.tokens.input, call.tokens.output))

`LlmObserver` is a handler. `Recogniser` and `AnswerReader` are its parts, for handlers and sinks of one's own: they see no socket.
"""

from soth_mitm.llm.answer_reader import AnswerReader
from soth_mitm.llm.conventions import span_attributes, span_name
from soth_mitm.llm.model_call import ModelCall, Tokens, ToolCall
from soth_mitm.llm.model_request import Part, Turn
from soth_mitm.llm.observer import LlmObserver
from soth_mitm.llm.recognition import Recognised, Recogniser

__all__ = [
    "AnswerReader",
    "LlmObserver",
    "ModelCall",
    "Part",
    "Recognised",
    "Recogniser",
    "Tokens",
    "ToolCall",
    "Turn",
    "span_attributes",
    "span_name",
]
