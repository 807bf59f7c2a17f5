from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.view import num_blocks
from coordinator.policy.work import Work
from simulator.batch import DecodeBatch
from simulator.job import Job
from tests.simulator.clusters import text

members = st.lists(
    st.tuples(st.integers(1, 300), st.integers(2, 100), st.integers(0, 20)), min_size=1, max_size=8
)


def job(order: int, outputs: int = 50) -> Job:
    made = Job(text(f"r{order}", outputs=outputs), Work(f"r{order}", 0.0, 100, 50), order)
    made.outputs = 1
    return made


@given(members, st.integers(1, 60))
def test_growth_is_what_sequences_take_one_by_one(members: list[tuple[int, int, int]], steps: int) -> None:
    batch = DecodeBatch(16)
    contexts = []
    for order, (kv_tokens, outputs, before) in enumerate(members):
        batch.advance(before)
        contexts = [each + before for each in contexts]
        batch.add(job(order, outputs), kv_tokens)
        contexts.append(kv_tokens)
    grown = sum(num_blocks(each + steps, 16) - num_blocks(each, 16) for each in contexts)
    assert batch.growth(steps) == grown
    assert batch.steps_within(grown, steps) == steps
    assert grown == 0 or batch.steps_within(grown - 1, steps) < steps
    num_steps, blocks = batch.longest_run(grown, steps)
    assert num_steps == steps
    assert blocks == grown
    assert batch.longest_run(10**6, steps) == (steps, batch.most_growth(steps))
    batch.check_integrity()


def test_sequences_end_in_order_of_their_last_token() -> None:
    batch = DecodeBatch(16)
    short, long = job(0, 5), job(1, 9)
    batch.add(long, 30)
    batch.add(short, 40)
    assert batch.steps_to_finish() == 4
    batch.advance(4)
    assert list(batch.finished()) == [short]
    assert batch.remove(short) == 44
    assert short.outputs == 5
    assert batch.steps_to_finish() == 4
    assert batch.context == 34


def test_a_sequence_that_came_back_ends_once() -> None:
    batch, one = DecodeBatch(16), job(0, 5)
    batch.add(one, 10)
    batch.advance(2)
    batch.remove(one)
    batch.add(one, 12)
    batch.advance(2)
    assert list(batch.finished()) == [one]
    assert not batch.finished()
