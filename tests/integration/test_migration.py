"""Streams that move between decode instances, again and again, have the tokens of an undisturbed run."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from core.families import load_family
from elasticmm_client import GenerateResult, InvalidRequest, Migration, Stream
from stage_servers.engine.loader import load_model
from tests.checkpoints import build_checkpoint
from tests.draws import compare_sampled
from tests.exactness import Oracle, Tally, make_spec
from tests.integration.asking import Asked, ask_all, make_questions, tokenizer_of
from tests.integration.running import Running, cluster
from tests.stage_servers.engine.harness import Bench, answer_all

pytestmark = pytest.mark.cluster

# Steps of some milliseconds, so that an answer is not all made before the first move is asked for.
WIDE = {"num_hidden_layers": 6, "intermediate_size": 8192}
NUM_TOKENS = 500
ENOUGH_MOVES = 3
MOST_ROUNDS = 8  # a round in which a busy machine left no time for moves is asked once more
NUM_MOVING = 2  # the rest decode beside them
SETUPS = [
    # family, topology, instances, transport, first of the questions
    ("first", "e1p1d2", None, "shm", 0),
    ("first", "coupled", 2, "grpc", 1),
    ("second", "e1p1d2", None, "grpc", 1),
    ("second", "coupled", 2, "shm", 0),
]
SAMPLING: list[dict[str, Any]] = [
    {},
    {"temperature": 1.3, "min_p": 0.02, "presence_penalty": 0.5, "frequency_penalty": 0.3},
    {"temperature": 0.9, "repetition_penalty": 1.2, "top_p": 0.9},
    {"temperature": 0.7, "top_k": 40},
]


@dataclass
class Moving:
    """One stream that is moved whenever it has made `every` tokens more; never if that is None."""

    name: str
    stream: Stream
    running: Running
    every: int | None
    moves: list[Migration] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def read(self) -> GenerateResult:
        last = 0
        for event in self.stream:
            index = getattr(event, "first_index", 0)
            if self.every is not None and index >= last + self.every:
                last = index
                self._move()
        return self.stream.result()

    def _move(self) -> None:
        try:
            self.moves.append(self.running.client.migrate(self.name))
        except InvalidRequest as error:  # at the answer's end
            self.refusals.append(str(error))


@dataclass
class Round:
    """All questions asked at once; the first ones are moved."""

    moving: list[Moving]
    results: list[GenerateResult]


def has_enough_moves(rounds: list[Round]) -> bool:
    """Of every question that is to move, all rounds together."""
    counts = (sum(len(each.moving[index].moves) for each in rounds) for index in range(NUM_MOVING))
    return all(count >= ENOUGH_MOVES for count in counts)


def ask_and_move(running: Running, asked: list[Asked]) -> Round:
    moving = [start(running, index, each) for index, each in enumerate(asked)]
    with ThreadPoolExecutor(len(moving)) as threads:
        return Round(moving, list(threads.map(Moving.read, moving)))


def start(running: Running, index: int, asked: Asked) -> Moving:
    name = f"moving-{index}"
    stream = running.client.generate(
        asked.messages,
        request_id=name,
        max_tokens=NUM_TOKENS,
        ignore_eos=True,
        seed=1000 + index,
        **SAMPLING[index],
    )
    return Moving(name, stream, running, every=13 + 6 * index if index < NUM_MOVING else None)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: build_checkpoint(folder / name, name, **WIDE) for name in ("first", "second")}


@pytest.mark.parametrize(("family", "topology", "instances", "transport", "first"), SETUPS)
def test_moves_change_no_token(
    models: dict[str, Path],
    tmp_path: Path,
    family: str,
    topology: str,
    instances: int | None,
    transport: str,
    first: int,
) -> None:
    model = models[family]
    options = ["--dtype", "float32", "--transport", transport, "--threads", "1", "--kv-blocks", "300"]
    options += ["--instances", str(instances)] if instances else []
    asked = make_questions(seed=5, count=5)[first : first + 4]
    with cluster(tmp_path / "state", model, topology, *options) as running:
        ask_all(running.client, asked, max_tokens=8)  # the first prefill of a process loads code
        rounds = [ask_and_move(running, asked)]
        while not has_enough_moves(rounds) and len(rounds) < MOST_ROUNDS:
            rounds.append(ask_and_move(running, asked))
        running.assert_idle()
    assert has_enough_moves(rounds), [each.refusals for each in rounds[-1].moving]
    for each in rounds:
        for moving, result in zip(each.moving[:NUM_MOVING], each.results, strict=False):
            check_moves(moving, result, transport)
    check_tokens(model, asked, [each.results for each in rounds])


def check_moves(moving: Moving, result: GenerateResult, transport: str) -> None:
    """The story of the request shows every part, and nothing was done twice."""
    parts = [span.instance for span in result.stages if span.stage == "decode"]
    sources = [move.from_instance for move in moving.moves]
    assert parts[: len(sources)] == sources, result.stages
    assert len(parts) - len(sources) in (1, 2)  # a last move may have come too late to be told of
    for move in moving.moves:
        assert move.from_instance != move.to_instance
        assert move.transport == transport
        assert move.size_bytes > 0
    assert sum(span.stage == "prefill" for span in result.stages) == 1, "it was dispatched again"


def check_tokens(path: Path, asked: list[Asked], rounds: list[list[GenerateResult]]) -> None:
    """Each answer is that of an engine with nothing else to do, but for draws that rounding moved."""
    family, tokenizer, model, tally = load_family(path), tokenizer_of(path), load_model(path), Tally()
    for index, each in enumerate(asked):
        question = each.question(tokenizer)
        sampling = SAMPLING[index]
        spec = make_spec(family, question, "alone", max_tokens=NUM_TOKENS, seed=1000 + index, **sampling)
        bench = Bench(model)
        answer_all(bench, [spec], [question])
        for token_ids in {results[index].token_ids for results in rounds}:
            alone = tuple(bench.tokens[spec.key])
            if sampling:
                compare_sampled(model, question, spec, token_ids, alone, tally=tally)
            elif token_ids != alone:
                Oracle(path).compare(question, token_ids, tally)
    tally.check()


@pytest.fixture(scope="module")
def running(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    options = ["--dtype", "float32", "--threads", "1", "--kv-blocks", "300"]
    with cluster(tmp_path_factory.mktemp("cluster") / "state", models["first"], "e1p1d2", *options) as up:
        yield up


def test_the_target_can_be_named(running: Running) -> None:
    stream = running.client.generate("what is it?", request_id="mine", max_tokens=1500, ignore_eos=True)
    for _, event in zip(range(20), stream, strict=False):
        assert event is not None
    source, target = busy_and_idle(running)
    with pytest.raises(InvalidRequest, match="decodes on") as caught:
        running.client.migrate("mine", source)
    assert caught.value.code == "FAILED_PRECONDITION"
    moved = running.client.migrate("mine", target)
    assert (moved.from_instance, moved.to_instance) == (source, target)
    stream.cancel()
    running.assert_idle()


def busy_and_idle(running: Running) -> tuple[str, str]:
    by_load = sorted(
        (each.requests, each.id) for each in running.status().instances if "decode" in each.roles
    )
    return by_load[1][1], by_load[0][1]


def test_what_does_not_run_cannot_move(running: Running) -> None:
    with pytest.raises(InvalidRequest) as caught:
        running.client.migrate("nobody")
    assert (caught.value.code, caught.value.field) == ("NOT_FOUND", "request_id")
    running.assert_idle()
