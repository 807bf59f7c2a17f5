"""The unified cache of a cluster: times by hand, and nothing left whatever happens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.policy.view import Placement
from core.costs import MoveCosts
from core.lifecycle import RequestState
from simulator.workload.request import Picture, Request
from tests.simulator.clusters import picture, run, run_aware, text
from tests.simulator.profiles import ROUND

KNOWN: dict[str, Any] = {"prefix": (1, 2), "prefix_granule_tokens": 100}
SPLIT = [(0.0, {"i0": "e", "i1": "p", "i2": "pd"})]


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=1e-9)


def to(prefill: str, encode: tuple[str, ...] = (), **more: Any) -> Placement:
    """Prefilled and decoded there."""
    return Placement("", encode, prefill, prefill, 0.0, **more)


def test_a_prefix_where_it_is_costs_no_prefill() -> None:
    twice = [text("a", tokens=250, **KNOWN), text("b", 1.0, tokens=250, **KNOWN)]
    result = run(twice, unified=True)
    assert result.caches.prefix_hit_tokens == 200
    assert [record.ttft_s for record in result.records] == [about(0.026), about(0.011)]


def test_a_prefix_is_pulled_from_another_instance_and_kept() -> None:
    said = {"a": to("i0"), "b": to("i1", prefix="i0", prefix_tokens=200), "c": to("i1")}
    asked = [text(name, at, tokens=250, **KNOWN) for at, name in enumerate("abc")]
    result = run(asked, instances=2, unified=True, said=said)
    assert result.caches.pulled_bytes == 200_000
    pull_s = 0.002 + 0.0002  # setup, and 200 kB
    assert [each.ttft_s for each in result.records] == [about(0.026), about(pull_s + 0.011), about(0.011)]


@pytest.mark.parametrize(
    ("busy", "begins_s"),
    [
        ("i0", 1.01 + 0.0266 + 0.0022),  # the holder is at a step of 256 tokens, and sends after it
        ("i1", 1.01 + 0.0266 + 0.0154),  # who asks asks after its step, and so it has it after the next one
    ],
)
def test_a_pull_waits_for_the_step_at_hand_on_either_side(busy: str, begins_s: float) -> None:
    asked = [text("a", tokens=250, **KNOWN), text("busy", 1.01, tokens=400)]
    asked.append(text("b", 1.02, tokens=250, **KNOWN))
    said = {"a": to("i0"), "busy": to(busy), "b": to("i1", prefix="i0", prefix_tokens=200)}
    result = run(asked, instances=2, unified=True, said=said)
    found = {each.request_id: each.ttft_s for each in result.records}
    assert found["b"] == about(begins_s + 0.011 - 1.02)


def test_others_pass_a_prompt_that_waits_for_its_prefix() -> None:
    slow = replace(ROUND, kv_move=MoveCosts(0.5, 1e9))
    said = {"a": to("i0"), "b": to("i1", prefix="i0", prefix_tokens=200), "c": to("i1")}
    asked = [text("a", tokens=250, **KNOWN), text("b", 1.0, tokens=250, **KNOWN), text("c", 1.1)]
    result = run(asked, instances=2, unified=True, said=said, profile=slow)
    found = {each.request_id: each.ttft_s for each in result.records}
    assert found["c"] == about(0.011)
    assert found["b"] == about(0.5 + 0.0002 + 0.011)


def test_a_prefix_that_is_not_there_is_computed() -> None:
    said = {"a": to("i1", prefix="i0", prefix_tokens=200)}
    result = run([text("a", tokens=250, **KNOWN)], instances=2, unified=True, said=said)
    assert result.caches.prefix_hit_tokens == result.caches.pulled_bytes == 0
    assert result.records[0].ttft_s == about(0.026)


def test_the_next_turn_finds_what_the_answer_made() -> None:
    """90 tokens fill the third granule."""
    turn = text("a", tokens=250, outputs=90, made=(3,), **KNOWN)
    following = text("b", 9.0, tokens=350, prefix=(1, 2, 3), prefix_granule_tokens=100)
    assert run([turn, following], unified=True).caches.prefix_hit_tokens == 300
    assert run([replace(turn, made=()), following], unified=True).caches.prefix_hit_tokens == 200


def test_a_holder_sends_an_embedding_whatever_it_plays() -> None:
    said = {
        "a": to("i1", ("i1",)),
        "b": to("i2", ("i1",), held=frozenset({0})),
    }
    asked = [picture("a", digest=7), picture("b", 1.0, digest=7)]
    result = run(asked, SPLIT, instances=3, unified=True, said=said)
    assert result.caches.encoder_hits == 1
    assert sum(use.num_encodes for use in result.usage.values()) == 1
    assert result.records[1].encoded_s == about(1.0 + 0.002 + 0.0002)


def test_what_a_holder_has_no_more_is_encoded_there() -> None:
    said = {"a": to("i1", ("i1",), held=frozenset({0}))}
    result = run([picture("a", digest=7)], SPLIT, instances=3, unified=True, said=said)
    assert result.caches.encoder_hits == 0
    assert result.usage["i1"].num_encodes == 1


def test_an_embedding_under_way_is_waited_for() -> None:
    """Both come while it is encoded, for 70 ms."""
    said = {"a": to("i1", ("i0",)), "b": to("i1", ("i0",)), "c": to("i2", ("i0",))}
    asked = [picture(name, 0.01 * at, digest=7) for at, name in enumerate("abc")]
    result = run(asked, SPLIT, instances=3, unified=True, said=said)
    assert result.usage["i0"].num_encodes == 1
    assert result.caches.encoder_hits == 2
    there_s = sorted(each.encoded_s or 0.0 for each in result.records)
    assert there_s == [about(0.0722), about(0.0724), about(0.0726)]  # one after the other


def test_items_in_the_prefix_are_skipped() -> None:
    """A picture of 208 tokens is 13 granules: its KV is all there."""
    said = {
        "a": to("i1", ("i1",)),
        "b": to("i1", ("i0",), skipped=frozenset({0}), prefix="i1", prefix_tokens=208),
    }
    asked = [picture("a", tokens=208, digest=7), picture("b", 1.0, tokens=208, digest=7)]
    result = run(asked, SPLIT, instances=3, unified=True, said=said)
    assert (result.caches.skipped_encodes, result.caches.prefix_hit_tokens) == (1, 208)
    assert sum(use.num_encodes for use in result.usage.values()) == 1
    assert result.records[1].ttft_s == about(0.011)


def test_skipped_items_are_encoded_where_the_prefix_is_gone() -> None:
    said = {"b": to("i1", ("i0",), skipped=frozenset({0}), prefix="i1", prefix_tokens=208)}
    asked = [picture("b", tokens=208, digest=7)]
    result = run(asked, SPLIT, instances=3, unified=True, said=said, control_s=0.001)
    assert result.caches.skipped_encodes == 0
    assert result.usage["i0"].num_encodes == 1
    # the dispatch, the report and the command, the encode, and its way
    assert result.records[0].encoded_s == about(3 * 0.001 + 0.0708 + 0.002 + 0.000208)


def test_the_same_text_after_other_pictures_is_another_sequence() -> None:
    asked = [picture(name, at, tokens=208, digest=at) for at, name in enumerate("ab")]
    assert run(asked, unified=True).caches.prefix_hit_tokens == 0


def test_a_short_pool_keeps_only_what_it_has_room_for() -> None:
    """That is two prompts of 32 blocks: the last ones."""
    tight = replace(ROUND, kv_tokens=1024)
    asked = [
        text(f"t{at}", at, tokens=512, prefix=(10 * at, 10 * at + 1), prefix_granule_tokens=256)
        for at in range(5)
    ]
    again = [replace(asked[at], request_id=f"again{at}", arrival_s=10.0 + at) for at in (4, 0)]
    result = run([*asked, *again], unified=True, profile=tight)
    assert result.caches.prefix_hit_tokens == 511


def test_aware_policies_keep_a_conversation_where_it_is_warm() -> None:
    talk = [
        text(
            f"{user}{turn}",
            3.0 * turn + 0.001 * ((user + turn) % 4),
            tokens=100 * turn + 150,
            prefix=tuple(range(1000 * user, 1000 * user + turn + 1)),
            prefix_granule_tokens=100,
        )
        for turn in range(5)
        for user in range(4)
    ]
    talk.sort(key=lambda each: each.arrival_s)
    aware = run_aware("emp", talk, 4)
    assert aware.caches.prefix_hit_tokens == 4 * (100 + 200 + 300 + 400)
    assert run(talk, instances=4, unified=True).caches.prefix_hit_tokens < aware.caches.prefix_hit_tokens


pictures = st.builds(Picture, st.just(200), st.just(200), st.integers(150, 260), st.integers(0, 2))
requests = st.builds(
    Request,
    st.just(""),
    st.floats(0, 2),
    st.integers(1, 400),
    st.integers(1, 60),
    st.just(60),
    st.lists(pictures, max_size=3).map(tuple),
)
texts = st.builds(
    lambda at_s, heads, rest, outputs: text(
        "", at_s, heads * 100 + rest, outputs, prefix=tuple(range(heads)), prefix_granule_tokens=100
    ),
    st.floats(0, 2),
    st.integers(0, 4),
    st.integers(1, 99),
    st.integers(1, 60),
)
workloads = st.lists(st.one_of(requests, texts), min_size=1, max_size=40).map(
    lambda found: [
        replace(each, request_id=f"r{at}")
        for at, each in enumerate(sorted(found, key=lambda each: each.arrival_s))
    ]
)


@settings(max_examples=60, deadline=None)
@given(
    workloads,
    st.sampled_from(["emp", "static:equal", "coupled", "fixed"]),
    st.sampled_from([ROUND, replace(ROUND, kv_tokens=1536, embedding_tokens=1040)]),
    st.sampled_from(["inline", "blocking", "pipelined"]),
)
def test_every_request_ends_and_nothing_is_left(
    workload: list[Request], policy: str, profile: Any, encoding: Any
) -> None:
    """Books, blocks and what is waited for are checked at the end of the run."""
    result = run_aware(policy, workload, 4, profile, encoding=encoding)
    assert len(result.records) == len(workload)
    outputs = {each.request_id: each.output_tokens for each in workload}
    for record in result.records:
        if record.state is RequestState.FINISHED:
            assert record.output_tokens == outputs[record.request_id]
