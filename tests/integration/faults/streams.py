"""Many streams at once, followed token by token and compared with transformers' answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from elasticmm_client import GenerateResult, Tokens
from tests.exactness import Oracle, Tally
from tests.integration.asking import Asked, make_questions, tokenizer_of
from tests.integration.faults.failing import Failing

LONG_TEXT = "what is the colour of the large circle in the picture? The picture shows a red square. " * 6
_names = itertools.count()


class Reference:
    """Questions with text only, with pictures and of several chunks, and what they are answered."""

    def __init__(self, model: Path, num_questions: int = 8, num_tokens: int = 160) -> None:
        self.num_tokens = num_tokens
        self.asked = [_longer(asked) for asked in make_questions(seed=23, count=num_questions)]
        self._oracle = Oracle(model)
        self._tokenizer = tokenizer_of(model)

    def check(self, results: Sequence[GenerateResult]) -> None:
        """Each answer is complete, and that of an undisturbed run."""
        tally = Tally()
        for asked, result in zip(self.asked, results, strict=True):
            assert len(result.token_ids) == self.num_tokens
            self._oracle.compare(asked.question(self._tokenizer), result.token_ids, tally)
        tally.check()


class Streams:
    """All questions asked at once; each is read by a thread of its own.

    Each is alone with what it leaves in caches, so that it comes to every point each time it is asked.
    """

    def __init__(self, cluster: Failing, asked: Sequence[Asked], max_tokens: int = 160) -> None:
        self._cluster = cluster
        self._max_tokens = max_tokens
        self.names = [f"asked-{next(_names)}" for _ in asked]
        self.num_tokens = dict.fromkeys(self.names, 0)
        self._threads = ThreadPoolExecutor(len(asked))
        self._reading: list[Future[GenerateResult]] = [
            self._threads.submit(self._read, name, each) for name, each in zip(self.names, asked, strict=True)
        ]

    def results(self) -> list[GenerateResult]:
        with self._threads:
            return [each.result(timeout=100) for each in self._reading]

    @property
    def repeated(self) -> list[str]:
        """Requests that were dispatched more than once."""
        return [name for name in self.names if self._cluster.num_dispatches(name) > 1]

    def _read(self, name: str, asked: Asked) -> GenerateResult:
        options: dict[str, Any] = {"max_tokens": self._max_tokens, "ignore_eos": True}
        options |= {"request_id": name, "cache_salt": name}
        stream = self._cluster.client.generate(asked.messages, **options)
        for event in stream:
            if isinstance(event, Tokens):
                assert event.first_index == self.num_tokens[name], "an index is missing or repeated"
                self.num_tokens[name] += len(event.token_ids)
        return stream.result()


def _longer(asked: Asked) -> Asked:
    """With text before it, so that every prompt has several chunks."""
    return Asked((LONG_TEXT, *asked.parts))
