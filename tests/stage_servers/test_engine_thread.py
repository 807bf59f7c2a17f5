"""The engine thread takes calls between steps and slices, and encodes what waits together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stage_servers import engine_thread
from stage_servers.engine_thread import EngineThread


@dataclass
class FakeModel:
    """Encodes numbers by doubling them; remembers the batches."""

    batches: list[list[int]] = field(default_factory=list)
    turns: list[str] = field(default_factory=list)
    rests: list[int] = field(default_factory=list)  # turns before each
    on_encode: Callable[[], object] = lambda: None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def encode_in_parts(self, inputs: list[Any], num_parts: int) -> Iterator[list[int] | None]:
        if any(item.value < 0 for item in inputs):
            raise RuntimeError("a negative picture")
        self.batches.append([item.value for item in inputs])
        for number in range(num_parts):
            self.turns.append("encode")
            self.on_encode()
            yield [2 * item.value for item in inputs] if number + 1 == num_parts else None

    def padded_tokens(self, sizes: Sequence[int]) -> int:
        return sum(sizes)

    def note_rest(self) -> None:
        self.rests.append(len(self.turns))


@dataclass
class FakeEngine:
    """Has work for a number of steps."""

    turns: list[str]
    steps_left: int = 0
    wants_step_first: bool = False
    num_awaited: int = 0
    threads: set[str] = field(default_factory=set)

    @property
    def has_work(self) -> bool:
        return self.steps_left > 0

    def close(self) -> None:
        self.turns.append("closed")

    def step(self) -> Any:
        if self.steps_left == 13:
            raise RuntimeError("an unlucky step")
        self.steps_left -= 1
        self.turns.append("step")
        self.threads.add(threading.current_thread().name)
        return SimpleNamespace(
            tokens=(self.steps_left,), failed=(), prefilled=(), num_tokens=1, duration_s=0.0
        )


@pytest.fixture
async def thread() -> AsyncIterator[Any]:
    """Every batch is a turn of its own, for by arrival nothing is cut."""
    async with made_thread(encode_order="arrival") as made:
        yield made


@pytest.fixture
async def slicing() -> AsyncIterator[Any]:
    """Items take 10 ms a token as predicted, no time in fact; slices are 100 ms."""
    async with made_thread(slice_s=0.1) as made:
        made._encodes._schedule._predict = lambda num_tokens: 0.01 * num_tokens
        yield made


@asynccontextmanager
async def made_thread(**settings: Any) -> AsyncIterator[Any]:
    outputs: list[Any] = []
    crashes: list[Exception] = []
    model = FakeModel()
    made: Any = EngineThread(
        model,  # type: ignore[arg-type]
        FakeEngine(model.turns),  # type: ignore[arg-type]
        on_step=outputs.append,
        on_crash=crashes.append,
        max_encode_tokens=10,
        **settings,
    )
    made.outputs = outputs
    made.model = model
    made.crashes = crashes
    yield made
    if made._thread.is_alive():
        await asyncio.to_thread(made.stop)


def pixels(value: int, num_tokens: int = 4) -> Any:
    return SimpleNamespace(value=value, num_tokens=num_tokens)


async def until_rested(thread: Any, num_turns: int) -> None:
    while num_turns not in thread.model.rests:
        await asyncio.sleep(0.001)


async def test_a_model_hears_when_there_is_nothing_to_do(thread: Any) -> None:
    """After the last of three steps, and of two; what was posted before the thread began is no rest."""
    thread.post(lambda: setattr(thread._engine, "steps_left", 3))
    thread.start()
    await until_rested(thread, 3)
    await thread.call(lambda: setattr(thread._engine, "steps_left", 2))
    await until_rested(thread, 5)
    await asyncio.to_thread(thread.stop)
    assert set(thread.model.rests) == {3, 5}


async def test_steps_run_in_the_engine_thread_until_the_work_is_done(thread: Any) -> None:
    thread.start()
    engine = thread._engine

    def begin() -> None:
        engine.steps_left = 3

    await thread.call(begin)
    while engine.steps_left:
        await asyncio.sleep(0.001)
    await thread.call(lambda: None)
    assert [output.tokens for output in thread.outputs] == [(2,), (1,), (0,)]
    assert engine.threads == {"engine"}


async def test_the_longest_turn_counts_less_in_time(thread: Any) -> None:
    thread.start()
    engine = thread._engine
    step = engine.step
    seconds = iter([3.0, 1.0, 2.0])

    def timed() -> SimpleNamespace:
        output = step()
        output.duration_s = next(seconds)
        return output

    engine.step = timed

    def begin() -> None:
        engine.steps_left = 3

    await thread.call(begin)
    while engine.steps_left:
        await asyncio.sleep(0.001)
    await thread.call(lambda: None)
    assert 2.9 < thread.longest_turn_s < 3.0
    await thread.encode(pixels(1))
    assert 2.9 < thread.longest_turn_s < 3.0


async def test_waiting_items_are_encoded_together_within_the_token_bound(thread: Any) -> None:
    jobs = [asyncio.create_task(thread.encode(pixels(value))) for value in (1, 2, 3)]
    await asyncio.sleep(0)
    thread.start()
    done = await asyncio.gather(*jobs)
    assert [encoded.embedding for encoded in done] == [2, 4, 6]
    assert done[0].device_s == done[1].device_s > 0  # of one batch, as large as each other
    assert thread.model.batches == [[1, 2], [3]]


async def turns_of_three_batches(thread: Any, num_turns: int) -> str:
    jobs = [asyncio.create_task(thread.encode(pixels(value, num_tokens=10))) for value in (1, 2, 3)]
    await asyncio.sleep(0)
    thread.start()
    await asyncio.gather(*jobs)
    while len(thread.model.turns) < num_turns:
        await asyncio.sleep(0.001)
    return " ".join(thread.model.turns)


async def test_an_encode_batch_lets_one_step_go_first_and_only_one(thread: Any) -> None:
    thread._engine.wants_step_first = True
    thread._engine.steps_left = 6
    wanted = "step encode step step encode step step encode step"
    assert await turns_of_three_batches(thread, 9) == wanted


async def test_encode_batches_go_first_where_the_engine_does_not_mind(thread: Any) -> None:
    thread._engine.steps_left = 2
    assert await turns_of_three_batches(thread, 5) == "encode step encode step encode"


async def test_what_came_during_an_encode_batch_is_in_the_step_after_it(thread: Any) -> None:
    def add_one() -> None:
        thread._engine.steps_left += 1

    thread.model.on_encode = lambda: thread.post(add_one)
    assert await turns_of_three_batches(thread, 6) == "encode step encode step encode step"


async def encoded_beside_steps(thread: Any, *, comes_back: bool, is_provided: bool = True) -> list[str]:
    """Turns, in which "provided" is when the prompt has got the embedding: as soon as the loop has it."""
    engine = thread._engine

    def provide() -> None:
        engine.num_awaited = 0
        thread.model.turns.append("provided")

    async def encode_and_provide() -> None:
        await thread.encode(pixels(1), comes_back=comes_back)
        if is_provided:
            thread.post(provide)

    engine.steps_left, engine.num_awaited = 5, 1
    task = asyncio.create_task(encode_and_provide())
    await asyncio.sleep(0)
    thread.start()
    await task
    while engine.steps_left:
        await asyncio.sleep(0.001)
    await thread.call(lambda: None)
    return list(thread.model.turns)


async def test_a_step_waits_for_the_embedding_that_a_prompt_of_its_engine_misses(
    thread: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_thread, "_COMES_BACK_S", 60.0)
    turns = await encoded_beside_steps(thread, comes_back=True)
    assert turns == ["encode", "provided", *["step"] * 5]


async def test_no_step_waits_for_an_embedding_that_goes_elsewhere(
    thread: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_thread, "_COMES_BACK_S", 1e6)
    turns = await encoded_beside_steps(thread, comes_back=False, is_provided=False)
    assert turns == ["encode", *["step"] * 5]


async def test_no_step_waits_for_long(thread: Any) -> None:
    turns = await encoded_beside_steps(thread, comes_back=True, is_provided=False)
    assert turns == ["encode", *["step"] * 5]


async def test_the_thread_stops_while_a_step_waits_for_an_embedding(
    thread: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_thread, "_COMES_BACK_S", 60.0)
    thread._engine.steps_left, thread._engine.num_awaited = 5, 1
    job = asyncio.create_task(thread.encode(pixels(1), comes_back=True))
    await asyncio.sleep(0)
    thread.start()
    await job
    await asyncio.to_thread(thread.stop)
    assert thread.model.turns == ["encode", "closed"]


async def test_an_oversize_item_is_encoded_alone(thread: Any) -> None:
    thread.start()
    encoded = await thread.encode(pixels(7, num_tokens=99))
    assert encoded.embedding == 14


async def test_errors_reach_the_caller_and_the_thread_lives_on(thread: Any) -> None:
    thread.start()
    with pytest.raises(RuntimeError, match="negative"):
        await thread.encode(pixels(-1))
    with pytest.raises(ZeroDivisionError):
        await thread.call(lambda: 1 / 0)
    assert await thread.call(lambda: "still here") == "still here"


async def test_a_step_that_raises_is_a_crash(thread: Any) -> None:
    thread._engine.steps_left = 13
    thread.start()
    await asyncio.to_thread(thread._thread.join)
    assert [str(error) for error in thread.crashes] == ["an unlucky step"]


async def test_a_cancelled_item_is_not_encoded(thread: Any) -> None:
    first = asyncio.create_task(thread.encode(pixels(1)))
    second = asyncio.create_task(thread.encode(pixels(2)))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    thread.start()
    await second
    assert thread.model.batches == [[2]]


async def until_begun(thread: Any) -> None:
    while not thread.num_encoding:
        await asyncio.sleep(0.001)


async def test_a_decode_has_its_step_between_two_slices_of_a_large_picture(slicing: Any) -> None:
    slicing._turns._slice_s = slicing._turns._left_s = 1e-9  # a slice is a turn
    slicing._engine.steps_left = 4
    job = asyncio.create_task(slicing.encode(pixels(1, num_tokens=35)))
    await asyncio.sleep(0)
    slicing.start()
    assert (await job).embedding == 2
    turns = " ".join(slicing.model.turns)
    assert turns.startswith("encode step encode step encode step encode")


async def test_turns_hear_of_the_target_per_token(thread: Any) -> None:
    thread.start()
    thread.aim_for(0.1)
    await thread.call(lambda: None)
    thread._turns.note_step(0.01)
    thread._turns.note_slice(0.02, is_last=False)
    assert thread._turns.is_encode_next(lambda: False)  # for 30 ms, else for 15


async def test_a_small_picture_that_comes_during_a_large_one_is_done_before_it(slicing: Any) -> None:
    done: list[int] = []
    small: list[asyncio.Task[Any]] = []
    loop = asyncio.get_running_loop()

    async def encode(value: int, num_tokens: int) -> None:
        await slicing.encode(pixels(value, num_tokens), arrived_s=0.0)
        done.append(value)

    def come() -> None:
        """Once, while the large picture is encoded."""
        slicing.model.on_encode = lambda: None
        asked = asyncio.run_coroutine_threadsafe(start_small(), loop)
        asked.result(timeout=60)

    async def start_small() -> None:
        small.append(asyncio.create_task(encode(2, 5)))
        await asyncio.sleep(0)

    slicing.model.on_encode = come
    large = asyncio.create_task(encode(1, 90))
    slicing.start()
    await large
    await small[0]
    assert done == [2, 1]
    assert slicing.model.batches == [[1], [2]]
    assert slicing.model.turns == ["encode"] * 10


async def test_a_cancel_ends_a_large_picture_between_two_slices(slicing: Any) -> None:
    go_on = threading.Event()
    slicing.model.on_encode = go_on.wait
    slicing.start()
    job = asyncio.create_task(slicing.encode(pixels(1, num_tokens=90)))
    await until_begun(slicing)
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    go_on.set()
    await slicing.call(lambda: None)
    assert slicing.model.turns == ["encode"]
    assert not slicing._encodes.has_work
    assert not slicing._encodes._runs
    assert slicing.num_encoding == 0


async def test_the_engine_thread_takes_its_gpu_as_its_own(
    thread: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton launches on whichever GPU is the thread's own."""
    taken: list[tuple[torch.device, str]] = []
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda device: taken.append((device, threading.current_thread().name))
    )
    thread._device = torch.device("cuda", 1)
    thread.start()
    await thread.call(lambda: None)
    assert taken == [(torch.device("cuda", 1), "engine")]
