"""Text goes first in a step, pictures keep half of it, and nobody waits for ever."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.prompt_order import PromptOrder, choose_chunks, is_text_ready

STEP = 64


@dataclass(eq=False)
class Prompt:
    has_media: bool
    num_ready: int
    needed: int = 1  # blocks
    is_started: bool = False


def text(num_ready: int = 40, needed: int = 1, *, is_started: bool = False) -> Prompt:
    return Prompt(False, num_ready, needed, is_started)


def picture(num_ready: int = 200, needed: int = 1, *, is_started: bool = False) -> Prompt:
    return Prompt(True, num_ready, needed, is_started)


@dataclass
class Engine:
    free: int = 100
    prompts: list[Prompt] = field(default_factory=list)

    def admit(self, prompt: Prompt, kept: Prompt | None) -> bool:
        if prompt.needed + (kept.needed if kept else 0) > self.free:
            return False
        self.free -= prompt.needed
        prompt.is_started = True
        return True

    def choose(self, budget: int = STEP, order: PromptOrder = "text-first") -> dict[Prompt, int]:
        return dict(choose_chunks(self.prompts, budget, STEP, self.admit, order))

    def step(self) -> dict[Prompt, int]:
        """Runs what is chosen; prompts that end give their blocks back."""
        chosen = self.choose()
        for prompt, num_tokens in chosen.items():
            prompt.num_ready -= num_tokens
            if not prompt.num_ready:
                self.prompts.remove(prompt)
                self.free += prompt.needed
        return chosen


@pytest.mark.parametrize(
    ("prompts", "tokens"),
    [
        ([picture(200), text(20)], [44, 20]),  # text whole, the picture has the rest
        ([picture(200), text(200)], [32, 32]),  # half each
        ([picture(200), picture(200), text(200)], [32, None, 32]),
        ([picture(10), text(200)], [10, 54]),  # what pictures leave of their half
        ([picture(20), text(20)], [20, 20]),
        ([picture(0), text(200)], [None, 64]),  # its embedding is not there
        ([text(10), picture(200), text(30)], [10, 32, 30]),  # the last text's rest goes over the budget
        ([picture(200)], [64]),
        ([text(70), text(5)], [70, None]),
    ],
)
def test_what_a_step_takes(prompts: list[Prompt], tokens: list[int | None]) -> None:
    chosen = Engine(prompts=prompts).choose()
    assert [chosen.get(prompt) for prompt in prompts] == tokens


@given(st.booleans(), st.integers(1, 200), st.integers(1, 3), st.booleans(), st.integers(1, STEP))
def test_a_lone_prompt_goes_as_in_order_of_arrival(
    has_media: bool, num_ready: int, needed: int, is_started: bool, budget: int
) -> None:
    chosen = []
    for order in ("text-first", "arrival"):
        engine = Engine(free=2, prompts=[Prompt(has_media, num_ready, needed, is_started)])
        chosen.append((list(engine.choose(budget, order).values()), engine.free))
    assert chosen[0] == chosen[1]


def test_in_order_of_arrival_text_waits() -> None:
    waiting = Engine(prompts=[picture(200), text(20)])
    assert list(waiting.choose(order="arrival").values()) == [64]


@pytest.mark.parametrize(("budget", "tokens"), [(0, []), (1, [1])])
def test_a_budget_that_cannot_be_halved_goes_in_order_of_arrival(budget: int, tokens: list[int]) -> None:
    assert list(Engine(prompts=[picture(), text()]).choose(budget).values()) == tokens


def test_blocks_are_kept_for_the_older_prompt_of_the_other_kind() -> None:
    older, newer = picture(needed=8), text(needed=3)
    assert Engine(10, [older, newer]).choose() == {older: 64}
    older.is_started = False
    assert Engine(11, [older, newer]).choose() == {older: 32, newer: 40}
    large, small = text(needed=8), picture(needed=3)
    assert Engine(7, [large, small]).choose() == {}  # no room for the older one: none for the newer
    assert Engine(7, [small, large]).choose() == {small: 64}


def test_within_a_kind_blocks_are_given_strictly_in_order() -> None:
    running, large, small = picture(20, is_started=True), text(needed=8), text(needed=1)
    assert Engine(7, [running, large, small]).choose() == {running: 20}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.builds(Prompt, st.booleans(), st.integers(1, 300), st.integers(1, 10)), max_size=8),
    st.builds(Prompt, st.booleans(), st.integers(1, 300), st.integers(1, 10)),
    st.integers(1, 10),
)
def test_a_stream_of_the_other_kind_starves_no_prompt(before: list[Prompt], one: Prompt, needed: int) -> None:
    """It ends after what those before it could take, however long the stream is."""
    engine = Engine(10, [*before, one])
    bound = sum(-(-prompt.num_ready // (STEP // 2)) for prompt in engine.prompts)
    for _ in range(bound):
        engine.prompts.append(Prompt(not one.has_media, 100, needed))
        before_step = list(engine.prompts)
        chosen = engine.step()
        assert chosen
        assert sum(chosen.values()) <= STEP * 9 // 8
        runnable = [each for each in before_step if each.has_media and each.is_started]
        taken = sum(chosen.get(each, 0) for each in runnable)
        assert taken >= min(STEP // 2, taken + sum(each.num_ready for each in runnable))
    assert one not in engine.prompts


def test_text_is_ready_where_a_step_could_run_it() -> None:
    assert is_text_ready([picture(), text()], lambda _: True)
    assert not is_text_ready([picture(), text()], lambda _: False)
    assert not is_text_ready([picture(), text(0)], lambda _: True)
    assert is_text_ready([text(is_started=True)], lambda _: False)
    large, small = text(needed=8), text(needed=1)
    assert not is_text_ready([large, small], lambda prompt: prompt is small)


@given(st.booleans(), st.integers(1, 200), st.integers(0, 9), st.booleans(), st.integers(2, STEP))
def test_a_lone_prompt_has_the_step_in_either_order(
    has_media: bool, num_ready: int, needed: int, is_started: bool, budget: int
) -> None:
    alone, in_line = (
        list(Engine(5, [Prompt(has_media, num_ready, needed, is_started)]).choose(budget, order).values())
        for order in ("text-first", "arrival")
    )
    assert alone == in_line
    assert bool(alone) is (is_started or needed <= 5)
