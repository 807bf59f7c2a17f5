"""Two instances in one process, the first of which decodes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from core.families import load_family
from core.sampling import SamplingParams
from core.sequence import SequenceSpec
from stage_servers.engine.loader import load_model
from stage_servers.engine.model import Model
from tests.checkpoints import build_checkpoint
from tests.exactness import Question, expand, make_question
from tests.stage_servers.engine.harness import Bench, answer_all
from tests.stage_servers.pair import MAX_TOKENS
from tests.stage_servers.part import running
from tests.stage_servers.two import Two, ask


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(build_checkpoint(tmp_path_factory.mktemp("model") / "first"))


@pytest.fixture(scope="module")
def expected(model: Model) -> list[int]:
    """The undisturbed answer to `ask`."""
    bench, spec = Bench(model), ask(model)
    answer_all(bench, [spec], [make_question(load_family(model.path), 4)])
    return bench.tokens[spec.key]


@pytest.fixture(scope="module")
def question(model: Model) -> Question:
    """With one picture."""
    return make_question(load_family(model.path), 3, pictures=[(64, 56)])


@pytest.fixture(scope="module")
def answer(model: Model, question: Question) -> list[int]:
    """To `question`, without any cache."""
    bench = Bench(model)
    prompt, spans = expand(load_family(model.path), question)
    spec = SequenceSpec("undisturbed", 0, prompt, SamplingParams(max_tokens=MAX_TOKENS), spans)
    answer_all(bench, [spec], [question])
    return bench.tokens[spec.key]


@pytest.fixture
async def two(model: Model, expected: list[int]) -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        source, target = [
            await stack.enter_async_context(running(model, name, kv_blocks=64, epoch=epoch))
            for epoch, name in enumerate(("source", "target"), 1)
        ]
        made = Two(source, target, ask(model), expected)
        made.start()
        yield made
