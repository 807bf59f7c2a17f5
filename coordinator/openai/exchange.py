"""One call under way: internal events become OpenAI's objects."""

from __future__ import annotations

import time
from typing import Any

from coordinator.events import AcceptedEvent, Event, FinishedEvent, TokensEvent
from coordinator.openai.asked import Asked
from coordinator.openai.choices import Choices
from coordinator.openai.usage import UsageCount


class Exchange:
    """`begin` once, then each event of `choices` to `choice_of`; or `collect`, which does both."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self._usage = UsageCount(asked.num_per_prompt)
        self._model = ""
        self._created = int(time.time())

    async def begin(self, choices: Choices) -> None:
        """Returns when every choice is accepted; raises ServiceError if one is not."""
        for _ in self.asked.calls:
            found = await choices.next()
            assert found is not None, "every choice begins with its acceptance"
            self._accept(*found)

    async def collect(self, choices: Choices) -> dict[str, Any]:
        """The whole answer."""
        await self.begin(choices)
        while (found := await choices.next()) is not None:
            self.choice_of(*found)
        answer = self.asked.answer
        whole = [answer.whole(index) for index in range(len(self.asked.calls))]
        return self._envelope(answer.object_name, whole) | {"usage": self._usage.to_json()}

    def choice_of(self, index: int, event: Event) -> dict[str, Any] | None:
        """What the event adds to its choice, None where nothing can be shown."""
        self._usage.push(index, event)
        if isinstance(event, TokensEvent):
            return self.asked.answer.push(index, event)
        assert isinstance(event, FinishedEvent)
        return self.asked.answer.finish(index, event)

    def chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        whole = self._envelope(self.asked.answer.chunk_name, [choice])
        if self.asked.wants_usage_always:
            whole["usage"] = self._usage.to_json()
        elif self.asked.wants_usage:
            whole["usage"] = None
        return whole

    def usage_chunk(self) -> dict[str, Any]:
        return self._envelope(self.asked.answer.chunk_name, []) | {"usage": self._usage.to_json()}

    def _accept(self, index: int, event: Event) -> None:
        assert isinstance(event, AcceptedEvent)
        self._model = event.model
        self._usage.push(index, event)

    def _envelope(self, object_name: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.asked.answer.id_prefix + self.asked.name,
            "object": object_name,
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }
