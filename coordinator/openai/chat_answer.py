"""Events of a chat's choices as OpenAI's messages and deltas."""

from __future__ import annotations

from typing import Any

from coordinator.events import FinishedEvent, TokensEvent
from coordinator.openai.logprobs import chat_logprobs
from coordinator.openai.readers import AnswerReader, CallPiece, Pieces
from coordinator.openai.token_texts import TokenTexts
from coordinator.openai.tool_choice import MakeReader
from core.sequence import FinishReason


class ChatAnswer:
    """See `asked.Answer`."""

    id_prefix = "chatcmpl-"
    object_name = "chat.completion"
    chunk_name = "chat.completion.chunk"

    def __init__(self, make_reader: MakeReader, num_choices: int, texts: TokenTexts | None) -> None:
        """`texts` None: without log probabilities."""
        self._choices = [_Choice(index, make_reader(), texts) for index in range(num_choices)]

    def begin(self, index: int) -> dict[str, Any] | None:
        return self._choices[index].delta({"role": "assistant", "content": ""})

    def push(self, index: int, event: TokensEvent) -> dict[str, Any] | None:
        return self._choices[index].push(event)

    def finish(self, index: int, event: FinishedEvent) -> dict[str, Any]:
        return self._choices[index].finish(event)

    def whole(self, index: int) -> dict[str, Any]:
        return self._choices[index].whole()


class _Choice:
    def __init__(self, index: int, reader: AnswerReader, texts: TokenTexts | None) -> None:
        self._index = index
        self._reader = reader
        self._token_texts = texts
        self._texts: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._logprobs: list[dict[str, Any]] = []
        self._finish: str | None = None

    def push(self, event: TokensEvent) -> dict[str, Any] | None:
        pieces = self._reader.push(event.text)
        logprobs = None
        if self._token_texts is not None:
            logprobs = chat_logprobs(event, self._token_texts)
            self._logprobs += logprobs["content"]
        added = self._add(pieces)
        return self.delta(added, logprobs) if added or logprobs else None

    def finish(self, event: FinishedEvent) -> dict[str, Any]:
        added = self._add(self._reader.finish())
        is_call = self._reader.ends_as_call and event.reason is FinishReason.STOP
        self._finish = "tool_calls" if is_call else event.reason.value
        return self.delta(added) | {"finish_reason": self._finish}

    def whole(self) -> dict[str, Any]:
        text = "".join(self._texts)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text if text or not self._calls else None,
            "refusal": None,
        }
        if self._calls:
            message["tool_calls"] = self._calls
        return {
            "index": self._index,
            "message": message,
            "logprobs": None if self._token_texts is None else {"content": self._logprobs, "refusal": None},
            "finish_reason": self._finish,
        }

    def delta(self, added: dict[str, Any], logprobs: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"index": self._index, "delta": added, "logprobs": logprobs, "finish_reason": None}

    def _add(self, pieces: Pieces) -> dict[str, Any]:
        """Keeps them, and says what they add."""
        added: dict[str, Any] = {}
        if pieces.text:
            self._texts.append(pieces.text)
            added["content"] = pieces.text
        if pieces.calls:
            added["tool_calls"] = [self._add_call(call) for call in pieces.calls]
        return added

    def _add_call(self, piece: CallPiece) -> dict[str, Any]:
        if piece.call_id is None:
            self._calls[piece.index]["function"]["arguments"] += piece.arguments
            return {"index": piece.index, "function": {"arguments": piece.arguments}}
        function = {"name": piece.name, "arguments": piece.arguments}
        self._calls.append({"id": piece.call_id, "type": "function", "function": dict(function)})
        return {"index": piece.index, "id": piece.call_id, "type": "function", "function": function}
