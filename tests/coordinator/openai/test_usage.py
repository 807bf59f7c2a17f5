from __future__ import annotations

from coordinator.events import AcceptedEvent, FinishedEvent, TokensEvent, Usage
from coordinator.openai.usage import UsageCount
from core.sequence import FinishReason


def test_a_prompt_counts_once_and_answers_add_up() -> None:
    count = UsageCount(2)
    usage = Usage(prompt_tokens=30, completion_tokens=2, media_tokens=8, cached_tokens=16, cached_media=3)
    for index in range(2):
        count.push(index, AcceptedEvent("r", "m", index, 30))
        count.push(index, TokensEvent(0, (1, 2), "ab"))
        count.push(index, FinishedEvent(FinishReason.LENGTH, "", usage, ()))
    assert count.to_json() == {
        "prompt_tokens": 30,
        "completion_tokens": 4,
        "total_tokens": 34,
        "prompt_tokens_details": {"cached_tokens": 16, "cached_media": 3},
    }
