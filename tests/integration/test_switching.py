"""Instances change roles and groups under load: no request fails, no token differs."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from elasticmm_client import AdminClient, GenerateResult, InvalidRequest
from tests.checkpoints import build_checkpoint
from tests.exactness import Oracle, Tally
from tests.integration.asking import Asked, make_questions, tokenizer_of
from tests.integration.running import Running, cluster

pytestmark = pytest.mark.cluster

NUM_TOKENS = 120
NUM_SWITCHES = 40
ROLES = ("e", "p", "d", "ep", "ed", "pd", "epd")
NAMES = {"e": "encode", "p": "prefill", "d": "decode"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("models") / "first", "first", intermediate_size=2048)


@pytest.fixture
def running(model: Path, tmp_path: Path) -> Iterator[Running]:
    options = ["--dtype", "float32", "--threads", "1", "--kv-blocks", "300", "--instances", "3"]
    with cluster(tmp_path / "state", model, "coupled", *options) as up:
        yield up


@pytest.fixture
def admin(running: Running) -> Iterator[AdminClient]:
    with AdminClient(running.address, (running.state_dir / "token").read_text().strip()) as client:
        yield client


class Load:
    """Questions asked over and over, several at a time, until told to stop."""

    def __init__(self, running: Running, asked: list[Asked], num_streams: int) -> None:
        self._running = running
        self._asked = asked
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(num_streams)
        self._asking = [self._threads.submit(self._ask, start) for start in range(num_streams)]

    def _ask(self, start: int) -> list[tuple[int, GenerateResult]]:
        answers = []
        for number in itertools.count(start):
            if self._stop.is_set():
                return answers
            index = number % len(self._asked)
            stream = self._running.client.generate(
                self._asked[index].messages, max_tokens=NUM_TOKENS, ignore_eos=True
            )
            answers.append((index, stream.result()))
        raise AssertionError

    def end(self) -> list[tuple[int, GenerateResult]]:
        """Every answer; raises what a request failed with."""
        self._stop.set()
        answers = [answer for asking in self._asking for answer in asking.result()]
        self._threads.shutdown()
        return answers


def test_switches_under_load_change_no_token(running: Running, admin: AdminClient, model: Path) -> None:
    asked = make_questions(seed=3, count=4)
    load = Load(running, asked, num_streams=4)
    rng = random.Random(7)
    switched: set[tuple[str, str]] = set()
    try:
        while admin.plan().transitions_done < NUM_SWITCHES:
            switched |= switch_one(running, admin, rng)
        done = admin.plan()
    finally:
        answers = load.end()
    assert done.transitions_rolled_back == 0
    assert len(switched) > 10, switched
    moved = sum(sum(span.stage == "decode" for span in result.stages) > 1 for _, result in answers)
    assert moved > 0, "no sequence had to leave an instance that gave up decoding"
    check_answers(answers, asked, model)
    for instance in running.status().instances:
        admin.pin(instance.id, ("encode", "prefill", "decode"), "shared")
    running.wait_until(lambda status: all(len(each.roles) == 3 for each in status.instances))
    running.assert_idle()


def switch_one(running: Running, admin: AdminClient, rng: random.Random) -> set[tuple[str, str]]:
    """Pins one instance to other roles, perhaps of another group; what could not serve is refused."""
    instance = rng.choice(running.status().instances)
    roles = tuple(NAMES[letter] for letter in rng.choice(ROLES))
    try:
        admin.pin(instance.id, roles, rng.choice(("text", "multimodal", "shared", "shared")))
    except InvalidRequest as error:
        if "nobody would play" not in str(error):
            raise
        return set()
    running_plan = admin.plan()
    while any(each.state != "serving" for each in running_plan.instances):
        running_plan = admin.plan()
    return {("+".join(instance.roles), "+".join(roles))}


def check_answers(answers: list[tuple[int, GenerateResult]], asked: list[Asked], model: Path) -> None:
    oracle, tally, tokenizer = Oracle(model), Tally(), tokenizer_of(model)
    for index in range(len(asked)):
        given = {result.token_ids for number, result in answers if number == index}
        for token_ids in given:
            assert len(token_ids) == NUM_TOKENS
            oracle.compare(asked[index].question(tokenizer), token_ids, tally)
    tally.check()


def test_an_instance_is_drained_and_resumed(running: Running, admin: AdminClient) -> None:
    streams = [
        running.client.generate("what is it?", request_id=f"r{i}", max_tokens=900, ignore_eos=True)
        for i in range(3)
    ]
    for stream in streams:
        next(iter(stream))
    busy = next(each.id for each in running.status().instances if each.requests)
    admin.drain(busy, timeout_s=60)
    drained = next(each for each in running.status().instances if each.id == busy)
    assert drained.requests == 0
    for _ in range(3):
        running.client.generate("and this?", max_tokens=3).result()
    assert all(len(stream.result().token_ids) == 900 for stream in streams)
    states = {each.id: each.state for each in admin.plan().instances}
    assert states[busy] == "drained"
    admin.resume(busy)
    assert {each.state for each in admin.plan().instances} == {"serving"}
    running.assert_idle()


def test_the_last_of_a_stage_cannot_leave(running: Running, admin: AdminClient) -> None:
    first, second, third = (each.id for each in running.status().instances)
    admin.pin(first, ("decode",))
    admin.pin(second, ("decode",))
    with pytest.raises(
        InvalidRequest, match="cannot be pinned to shared:d: nobody would play prefill for text requests"
    ):
        admin.pin(third, ("decode",))
    with pytest.raises(InvalidRequest, match="cannot be drained"):
        admin.drain(third)
    running.client.generate("and this?", max_tokens=3).result()
    assert any("dispatch" in each.piece for each in admin.why())
    admin.unpin(first)
    assert not next(each for each in admin.plan().instances if each.id == first).is_pinned
    running.assert_idle()
