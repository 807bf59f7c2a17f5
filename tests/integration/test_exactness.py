"""Served tokens are those of transformers, whatever the topology, transport, chunk size or batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.sequence import SequenceSpec
from core.topology import parse_topology
from elasticmm_client import GenerateResult
from stage_servers.engine.loader import load_model
from tests.checkpoints import build_checkpoint
from tests.exactness import Oracle, Tally, make_spec
from tests.integration.asking import Asked, ask_all, make_questions, tokenizer_of
from tests.integration.running import Running, cluster
from tests.kv_transfer.loopback import needs_nixl
from tests.stage_servers.engine.harness import Bench, answer_all

pytestmark = pytest.mark.cluster

NUM_TOKENS = 130
SETUPS = [
    # family, topology, transport, chunk tokens
    ("first", "coupled", "auto", 16),
    ("first", "ep1d1", "shm", 512),
    ("first", "e1pd1", "grpc", 24),
    ("first", "e1p1d1", "shm", 16),
    ("first", "e1p1d1", "grpc", 2048),
    ("first", "e1p1d1", "collective", 33),
    ("first", "e1p2d2", "auto", 33),
    ("second", "coupled", "auto", 512),
    ("second", "e1p1d1", "shm", 16),
    ("second", "e1p1d1", "grpc", 512),
    pytest.param("first", "e1p1d1", "nixl", 40, marks=needs_nixl),
]
SAMPLING: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.8, "top_k": 40},
    {"temperature": 1.3, "min_p": 0.02, "presence_penalty": 0.5, "frequency_penalty": 0.3},
    {"temperature": 0.9, "repetition_penalty": 1.2},
]


class Reference:
    """A checkpoint with transformers' answers and those of one undisturbed engine."""

    def __init__(self, model: Path) -> None:
        self.model = model
        self.oracle = Oracle(model)
        self.tokenizer = tokenizer_of(model)
        self.asked = make_questions(seed=7, count=9)
        self._sampled: dict[int, tuple[int, ...]] = {}

    def sampled(self, index: int, asked: Asked) -> tuple[int, ...]:
        """The seeded answer of an engine that has nothing else to do."""
        if index not in self._sampled:
            bench = Bench(load_model(self.model))
            question = asked.question(self.tokenizer)
            spec: SequenceSpec = make_spec(
                self.oracle.family, question, "alone", max_tokens=64, seed=1000 + index, **SAMPLING[index]
            )
            answer_all(bench, [spec], [question])
            self._sampled[index] = tuple(bench.tokens[spec.key])
        return self._sampled[index]


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reference]:
    folder = tmp_path_factory.mktemp("models")
    return {name: Reference(build_checkpoint(folder / name, name)) for name in ("first", "second")}


@pytest.mark.parametrize(("family", "topology", "transport", "chunk"), SETUPS)
def test_tokens_are_those_of_transformers(
    references: dict[str, Reference], tmp_path: Path, family: str, topology: str, transport: str, chunk: int
) -> None:
    reference = references[family]
    options = ["--dtype", "float32", "--transport", transport, "--chunk-tokens", str(chunk)]
    options += ["--kv-blocks", "600", "--threads", "1"]
    with cluster(tmp_path / "state", reference.model, topology, *options) as running:
        results = ask_all(running.client, reference.asked, max_tokens=NUM_TOKENS, ignore_eos=True)
        check_greedy(reference, results)
        for asked, result in zip(reference.asked, results, strict=True):
            check_path(asked, result, topology, transport)
        check_sampled(reference, running)
        running.assert_idle()


def check_greedy(reference: Reference, results: list[GenerateResult]) -> None:
    tally = Tally()
    for asked, result in zip(reference.asked, results, strict=True):
        assert len(result.token_ids) == NUM_TOKENS
        assert result.finish_reason == "length"
        reference.oracle.compare(asked.question(reference.tokenizer), result.token_ids, tally)
    tally.check()


def check_path(asked: Asked, result: GenerateResult, topology: str, transport: str) -> None:
    """Each stage ran where the topology has it, and results moved by the wanted transport; embeddings in
    shared memory stay where they are.
    """
    roles = {"".join(stage.value for stage in sorted(each, key=lambda s: "epd".index(s.value))) for each in
             parse_topology(topology).instances}  # fmt: skip
    by_stage: dict[str, list[Any]] = {}
    for span in result.stages:
        by_stage.setdefault(span.stage, []).append(span)
        assert span.instance.partition("-")[0] in roles
        assert span.stage[0] in span.instance.partition("-")[0]
    assert len(by_stage.get("encode", [])) == len(asked.pictures)
    assert len(by_stage["prefill"]) == len(by_stage["decode"]) == 1
    moved = {span.transport for span in by_stage["prefill"]}
    is_split = by_stage["prefill"][0].instance != by_stage["decode"][0].instance
    assert moved == ({transport.replace("auto", "shm")} if is_split else {"local"})
    for span in by_stage.get("encode", []):
        is_away = span.instance != by_stage["prefill"][0].instance
        away = {"auto": "in_place", "shm": "in_place"}.get(transport, transport)
        assert span.transport == (away if is_away else "local")


def check_sampled(reference: Reference, running: Running) -> None:
    """A seeded answer does not depend on where and with whom it is made."""
    streams = [
        running.client.generate(
            reference.asked[index].messages, max_tokens=64, ignore_eos=True, seed=1000 + index, **sampling
        )
        for index, sampling in enumerate(SAMPLING)
    ]
    for index, stream in enumerate(streams):
        assert stream.result().token_ids == reference.sampled(index, reference.asked[index])
