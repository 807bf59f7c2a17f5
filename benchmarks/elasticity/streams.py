"""Questions asked over and over, several at a time."""

from __future__ import annotations

import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cli.load.pictures import make_picture
from cli.load.texts import TextMaker
from elasticmm_client import Client, ElasticMMError, GenerateResult, user_message
from elasticmm_client.messages import Messages

PICTURE_SIZES = ((112, 112), (140, 84), (56, 168), (224, 224))


@dataclass(frozen=True, slots=True)
class Question:
    """Text with none, one or two pictures."""

    text: str
    pictures: tuple[bytes, ...]

    @property
    def messages(self) -> Messages:
        return [user_message(self.text, *self.pictures)]


def make_questions(model: Path, count: int, seed: int, *, num_tokens: int = 48) -> list[Question]:
    """Text only, one picture and two, in turn."""
    rng, texts = random.Random(seed), TextMaker(model)
    return [
        Question(
            texts.make(rng.randint(num_tokens // 2, num_tokens * 2), rng),
            tuple(make_picture(*rng.choice(PICTURE_SIZES), rng) for _ in range(index % 3)),
        )
        for index in range(count)
    ]


@dataclass(frozen=True, slots=True)
class Answer:
    """To the question of that index; the error instead where the request failed."""

    index: int
    result: GenerateResult | None
    error: str = ""


class Streams:
    """So many questions at a time until told to stop, each from a thread of its own."""

    def __init__(self, client: Client, questions: list[Question], num_streams: int, max_tokens: int) -> None:
        self._client = client
        self._questions = questions
        self._max_tokens = max_tokens
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(num_streams)
        self._asking = [self._threads.submit(self._ask, start) for start in range(num_streams)]

    def end(self) -> list[Answer]:
        """Every answer, once those under way are complete."""
        self._stop.set()
        answers = [answer for asking in self._asking for answer in asking.result()]
        self._threads.shutdown()
        return answers

    def _ask(self, start: int) -> list[Answer]:
        answers: list[Answer] = []
        for number in itertools.count(start):
            if self._stop.is_set():
                break
            answers.append(self._ask_one(number % len(self._questions)))
        return answers

    def _ask_one(self, index: int) -> Answer:
        messages = self._questions[index].messages
        try:
            stream = self._client.generate(messages, max_tokens=self._max_tokens, ignore_eos=True)
            return Answer(index, stream.result())
        except ElasticMMError as error:
            return Answer(index, None, f"{error.code}: {error}")
