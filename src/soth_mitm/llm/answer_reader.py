"""Reads the answer to a call of a model, event by event or whole, without a socket, and says what came of the call."""

from uuid import UUID

from soth_mitm._dataplane.http.messages import RawRequest
from soth_mitm._dataplane.wire.sse import SseFramer
from soth_mitm.llm import anthropic, bedrock, gemini, ollama, openai_chat
from soth_mitm.llm.draft import FINISHES, Draft
from soth_mitm.llm.json_text import array_elements, decoded_within
from soth_mitm.llm.model_call import Finish, Missing, ModelCall, Tokens
from soth_mitm.llm.recognition import Recognised

_DONE = b"[DONE]"
# bytes of JSON that are made into objects at once: of a longer text only fields up to it
LONGEST = 1 << 20
# events that are read out of one plain answer, which holds the loop meanwhile
MOST_EVENTS = 20_000


class AnswerReader:
    """One call's answer.

    Feed it the events of a stream with `feed`, or a plain answer with `read`; then `end` returns the `ModelCall`. Nothing that a peer sends
    raises: what cannot be read is in `ModelCall.problems`. At most `text_limit` characters of text, reasoning and arguments are kept, all
    together. Times are seconds of `time.monotonic()`; `began` is when the request came, None if that is not known. `streamed`: events are
    to come, though there may be none.
    """

    def __init__(self, call: Recognised, *, status: int, text_limit: int, streamed: bool = False, began: float | None = None) -> None:
        self._call = call
        self._family = call.family
        self._status = status
        self._began = began
        self._draft = Draft(text_limit)
        self._streamed = streamed
        self._unread: str | None = None
        self._may_lack_end = False
        for problem in call.problems:
            self._draft.problem(problem)

    def feed(self, payload: bytes, event: str = "", *, now: float, complete: bool = True, truncated: bool = False) -> None:
        """Take one event: the data of an SSE event, a line of JSON, or a message of AWS, with the name of the event.

        `complete` False: its end did not come. `truncated`: it was longer than `payload`.
        """
        draft = self._draft
        draft.begin(now)
        self._streamed = True
        if self._unread is not None:
            draft.problem(self._unread)
            self._unread = None
        if payload.strip() == _DONE:
            draft.is_over = True
            return
        data: object = None
        try:
            data = self._decoded(payload)
        except ValueError as error:
            if truncated:
                self._lack_end()
            elif complete:
                # the last line of a stream that was cut is one as well, see `end`
                self._unread = f"an event is {error}"
        if event.endswith(("Exception", "Error")):
            # of AWS: the stream ends with it
            draft.fail({"type": event} | (data if isinstance(data, dict) else {}))
            draft.is_over = True
        elif isinstance(data, dict):
            if "bytes" in data and self._family.read_event is anthropic.read_event:
                data, event = bedrock.unwrapped(draft, data), ""
            self._family.read_event(draft, event, data)
        elif data is not None:
            draft.problem("an event is no object")

    def miss(self, why: str) -> None:
        """Note that something of the answer was not read, and why."""
        self._lack_end()
        self._draft.problem(why)

    def read(self, body: bytes, *, now: float, truncated: bool = False, problem: str | None = None) -> None:
        """Take a plain answer, or a stream that was not announced as one. `problem` says why `body` could not be decoded."""
        draft = self._draft
        draft.begin(now)
        if truncated:
            self._lack_end()
        content = body.strip()
        if problem is not None:
            draft.problem(f"the answer's body: {problem}")
            draft.is_over = not truncated
        elif not 200 <= self._status < 300:
            self._read_error(content)
        elif content.startswith(b"[") and self._family.read_event is gemini.read_event:
            # a stream without `alt=sse`: an array of what would be events
            elements, is_whole, is_partial = array_elements(content, LONGEST)
            self._feed_all([(element, "", True) for element in elements], now)
            draft.is_over = draft.is_over or is_whole
            if is_partial:
                self._lack_end()
        elif content.startswith((b"data:", b"event:", b"id:", b":")):
            framer = SseFramer(LONGEST)
            chunks = [*framer.frames(body[:LONGEST]), *framer.last_frames()]
            if len(body) > LONGEST:
                self._lack_end()
            self._feed_all([(chunk.payload, chunk.event_type or "", chunk.complete) for chunk in chunks], now)
        elif self._family.read_event is ollama.read_event and b"\n{" in content:
            lines = content.split(b"\n", MOST_EVENTS)
            self._feed_all([(line, "", not truncated) for line in lines if line.strip()], now)
            if len(lines) > MOST_EVENTS:
                self._lack_end()
        else:
            self._read_object(content, truncated)
        # nothing in it came at a time of its own
        draft.first_at = None

    def _read_object(self, content: bytes, truncated: bool) -> None:
        try:
            data = self._decoded(content)
        except ValueError as error:
            if not truncated:
                self._draft.problem(f"the answer is {error}" if content else "the answer is empty")
                self._draft.is_over = True
            return
        if isinstance(data, dict):
            self._family.read_answer(self._draft, data)
        else:
            self._draft.problem("the answer is no object")
            self._draft.is_over = True

    def _feed_all(self, events: list[tuple[bytes, str, bool]], now: float) -> None:
        for payload, event, complete in events[:MOST_EVENTS]:
            self.feed(payload, event, now=now, complete=complete)
        if len(events) > MOST_EVENTS:
            self._lack_end()

    def _lack_end(self) -> None:
        """Something was not shown, which may have been the end."""
        self._draft.truncated = True
        self._may_lack_end = True

    def _decoded(self, data: bytes) -> object:
        found, is_partial = decoded_within(data, LONGEST)
        self._draft.truncated = self._draft.truncated or is_partial
        return found

    def _read_error(self, content: bytes) -> None:
        try:
            data = self._decoded(content)
        except ValueError:
            data = None
        self._draft.fail(data if data else f"HTTP {self._status}")
        self._draft.is_over = True

    def end(
        self,
        *,
        now: float,
        flow_id: int = 0,
        connection_id: UUID | None = None,
        request: RawRequest | None = None,
    ) -> ModelCall:
        """The answer is over, in order or not. Return what came of the call; nothing may be fed afterwards."""
        draft, call, began = self._draft, self._call, self._began
        if draft.error is None and not 200 <= self._status < 300:
            # of a stream that does not say what went wrong
            draft.fail(f"HTTP {self._status}")
        complete = self._is_complete()
        if complete and self._unread is not None:
            draft.problem(self._unread)
        words = [draft.stops[choice] for choice in sorted(draft.stops)]
        return ModelCall(
            provider=call.provider if call.is_known_host else draft.speaks_as or call.provider,
            family=call.family.name,
            operation=call.family.operation,
            model_asked=call.model,
            model_answered=draft.model,
            response_id=draft.response_id,
            streamed=self._streamed,
            status=self._status,
            tokens=draft.counts if draft.has_usage else Tokens(missing=self._why_uncounted(complete)),
            tools=tuple(tool.call(complete is True) for tool in draft.tools.values()),
            text=draft.text,
            reasoning=draft.reasoning,
            choices=len(draft.stops),
            stops=tuple(word for word in words if word is not None),
            finish=self._finish(words[0] if words else None),
            first_token=None if began is None or draft.first_at is None else max(draft.first_at - began, 0.0),
            duration=None if began is None else max(now - began, 0.0),
            error=draft.error,
            complete=complete,
            truncated=draft.truncated or draft.room.is_over,
            problems=tuple(draft.problems),
            cost=draft.cost,
            flow_id=flow_id,
            connection_id=connection_id,
            request=request,
        )

    def _is_complete(self) -> bool | None:
        draft = self._draft
        complete = draft.is_over
        if not complete and self._family.read_event is openai_chat.read_event:
            # not every server sends [DONE]
            complete = draft.has_stopped and (draft.has_usage or self._call.asked_for_usage is not True)
        return None if not complete and self._may_lack_end else complete

    def _finish(self, word: str | None) -> Finish | None:
        if word is None:
            return None if self._draft.error is None else "error"
        finish = FINISHES.get(word)
        if finish == "stop" and not all(tool.by_provider for tool in self._draft.tools.values()):
            # formats that have no word for it
            return "tool_calls"
        return finish

    def _why_uncounted(self, complete: bool | None) -> Missing:
        if self._draft.error is not None:
            return "error"
        if not complete:
            return "not_shown" if complete is None else "cut"
        return "not_requested" if self._streamed and self._call.asked_for_usage is False else "absent"
