"""Prefill runs up to the first picture whose embedding is missing, while others encode the rest."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from core.families import load_family
from core.sequence import SequenceSpec
from kv_transfer.sender import PeerAddress
from stage_servers.encode_stage import EncodeJob
from stage_servers.engine.model import Model
from stage_servers.engine.records import StepOutput
from stage_servers.media_pull import MediaSource
from tests.exactness import Question, make_question, make_spec
from tests.stage_servers.engine.harness import Bench, answer_all
from tests.stage_servers.part import Part, until
from tests.stage_servers.two import Two

MAX_TOKENS = 24


@dataclass
class Gateway:
    """Gives the pictures away, each when it may go."""

    question: Question
    may_go: dict[int, asyncio.Event] = field(default_factory=dict)

    def serve(self, part: Part, item_index: int) -> None:
        go = self.may_go[item_index] = asyncio.Event()

        async def pull(_: MediaSource) -> bytes:
            await go.wait()
            return self.question.pictures[item_index]

        part.instance._puller.pull = pull  # type: ignore[method-assign]


def count_prefilled(part: Part) -> list[int]:
    """Tokens prefilled so far, chunk by chunk."""
    chunks: list[int] = []
    step = part.engine.step

    def counted() -> StepOutput:
        output = step()
        chunks.extend(chunk.num_tokens for chunk in output.prefilled)
        return output

    part.engine.step = counted  # type: ignore[method-assign]
    return chunks


def encode(part: Part, spec: SequenceSpec, item_index: int, to: PeerAddress) -> None:
    span = spec.media[item_index]
    part.instance.encode(EncodeJob(spec.key, MediaSource(span.digest, 1, "", "", ""), span, to))


@pytest.fixture(scope="module")
def question(model: Model) -> Question:
    return make_question(load_family(model.path), 3, pictures=[(112, 112), (60, 90)])


@pytest.fixture(scope="module")
def answer(model: Model, question: Question) -> list[int]:
    bench, spec = Bench(model), ask(model, question)
    answer_all(bench, [spec], [question])
    return bench.tokens[spec.key]


def ask(model: Model, question: Question) -> SequenceSpec:
    return make_spec(load_family(model.path), question, "r", max_tokens=MAX_TOKENS)


@pytest.mark.parametrize("is_handed_over", [False, True])
async def test_a_chunk_is_prefilled_before_the_last_embedding_comes(
    two: Two, model: Model, question: Question, answer: list[int], is_handed_over: bool
) -> None:
    """The first picture is encoded where the prompt is prefilled, the second on another instance."""
    spec, gateway = ask(model, question), Gateway(question)
    prefill, other = two.target, two.source
    await two.source.instance.cancel(two.spec.key)
    chunks = count_prefilled(prefill)
    decode = other if is_handed_over else prefill
    gateway.serve(prefill, 0)
    gateway.serve(other, 1)
    if is_handed_over:
        decode.instance.decode(spec)
    prefill.instance.prefill(spec, decode.address)
    encode(prefill, spec, 0, prefill.address)
    encode(other, spec, 1, prefill.address)
    leading = [span.first_token for span in spec.media]
    await until(lambda: sum(chunks) == leading[0])
    gateway.may_go[0].set()
    await until(lambda: sum(chunks) == leading[1])
    assert not prefill.num_tokens(spec)
    gateway.may_go[1].set()
    await until(lambda: prefill.num_tokens(spec) + decode.num_tokens(spec) * is_handed_over == MAX_TOKENS)
    made = prefill.tokens[spec.key] + (decode.tokens[spec.key] if is_handed_over else [])
    assert made == list(enumerate(answer))
    assert sum(chunks) == len(spec.prompt)
    assert len(chunks) >= 3
    for part in (prefill, decode):
        await until(lambda part=part: part.is_free)  # type: ignore[misc]
        await part.instance.check_idle()
