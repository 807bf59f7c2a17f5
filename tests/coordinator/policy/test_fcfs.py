"""What must hold for every view: order, budget, blocks, roles."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy import POLICIES
from coordinator.policy.fcfs import FcfsPolicy
from coordinator.policy.view import (
    ClusterView,
    InstanceView,
    Placement,
    WaitingView,
    embedding_blocks,
    num_blocks,
)
from core.stages import COUPLED, Stage

BUDGET = 512

roles = st.frozensets(st.sampled_from(Stage), min_size=1)
loads = st.integers(0, 40)


@st.composite
def instances(draw: st.DrawFn) -> tuple[InstanceView, ...]:
    count = draw(st.integers(0, 6))
    return tuple(
        InstanceView(
            instance_id=f"i{number}",
            roles=draw(roles),
            block_tokens=16,
            total_kv_blocks=100,
            promised_kv_blocks=draw(st.integers(0, 100)),
            total_embedding_blocks=draw(st.none() | st.just(20)),
            promised_embedding_blocks=draw(st.integers(0, 20)),
            encode_tokens=draw(loads),
            prefill_tokens=draw(st.integers(0, 2 * BUDGET)),
            sequences=draw(loads),
        )
        for number in range(count)
    )


@st.composite
def waiting(draw: st.DrawFn) -> tuple[WaitingView, ...]:
    count = draw(st.integers(0, 8))
    return tuple(
        WaitingView(
            request_id=f"r{number}",
            arrival_s=draw(st.floats(0, 10)),
            prompt_tokens=draw(st.integers(1, 800)),
            reserve_tokens=draw(st.integers(1, 800)),
            media_tokens=tuple(draw(st.lists(st.integers(1, 64), max_size=3))),
            priority=draw(st.integers(-2, 2)),
        )
        for number in range(count)
    )


views = st.builds(ClusterView, instances(), waiting())


def place(view: ClusterView) -> tuple[Placement, ...]:
    return FcfsPolicy(BUDGET).place(view)


def by_id(view: ClusterView) -> tuple[dict[str, InstanceView], dict[str, WaitingView]]:
    return {i.instance_id: i for i in view.instances}, {w.request_id: w for w in view.waiting}


@given(views)
def test_places_a_prefix_of_the_queue(view: ClusterView) -> None:
    ranked = sorted(view.waiting, key=lambda w: (-w.priority, w.arrival_s, w.request_id))
    placed = [placement.request_id for placement in place(view)]
    assert placed == [w.request_id for w in ranked[: len(placed)]]


@given(views)
def test_stages_go_to_instances_that_play_them(view: ClusterView) -> None:
    instances, requests = by_id(view)
    for placement in place(view):
        assert Stage.PREFILL in instances[placement.prefill].roles
        assert Stage.DECODE in instances[placement.decode].roles
        assert len(placement.encode) == len(requests[placement.request_id].media_tokens)
        assert all(Stage.ENCODE in instances[name].roles for name in placement.encode)


@given(views)
def test_no_block_is_promised_twice(view: ClusterView) -> None:
    instances, requests = by_id(view)
    promised = defaultdict(int)
    for placement in place(view):
        request = requests[placement.request_id]
        whole = num_blocks(request.prompt_tokens + request.reserve_tokens, 16)
        promised[placement.decode] += whole
        if placement.prefill != placement.decode:
            promised[placement.prefill] += num_blocks(request.prompt_tokens, 16)
    for name, blocks in promised.items():
        assert blocks <= instances[name].total_kv_blocks - instances[name].promised_kv_blocks


@given(views)
def test_embeddings_fit_their_pool(view: ClusterView) -> None:
    instances, requests = by_id(view)
    promised = defaultdict(int)
    for placement in place(view):
        promised[placement.prefill] += embedding_blocks(requests[placement.request_id].media_tokens)
    for name, blocks in promised.items():
        total = instances[name].total_embedding_blocks
        held = instances[name].promised_embedding_blocks
        assert not blocks or total is None or held + blocks <= total or blocks == 0


@given(views)
def test_prefill_budget_holds_but_for_a_first_request(view: ClusterView) -> None:
    instances, requests = by_id(view)
    tokens: dict[str, list[int]] = defaultdict(list)
    for placement in place(view):
        tokens[placement.prefill].append(requests[placement.request_id].prompt_tokens)
    for name, added in tokens.items():
        before = instances[name].prefill_tokens
        assert before + sum(added) <= BUDGET or (before == 0 and len(added) == 1)


@given(views)
def test_equal_views_give_equal_decisions(view: ClusterView) -> None:
    assert place(view) == place(view)


@given(st.integers(1, 2000), st.integers(1, 4))
def test_an_idle_instance_takes_any_request_that_fits(prompt_tokens: int, num_media: int) -> None:
    instance = InstanceView("i", COUPLED, 16, total_kv_blocks=num_blocks(prompt_tokens + 5, 16))
    request = WaitingView("r", 0.0, prompt_tokens, 5, (16,) * num_media)
    (placement,) = place(ClusterView((instance,), (request,)))
    assert placement.instance_ids == {"i"}


def test_items_spread_over_encoders() -> None:
    encoders = [InstanceView(f"e{n}", frozenset({Stage.ENCODE}), 16, 0) for n in range(3)]
    rest = InstanceView("pd", frozenset({Stage.PREFILL, Stage.DECODE}), 16, 100)
    request = WaitingView("r", 0.0, 50, 5, (16, 16, 16))
    (placement,) = place(ClusterView((*encoders, rest), (request,)))
    assert set(placement.encode) == {"e0", "e1", "e2"}


def test_least_loaded_decoder_wins() -> None:
    prefill = InstanceView("p", frozenset({Stage.PREFILL}), 16, 100)
    decoders = [InstanceView(f"d{n}", frozenset({Stage.DECODE}), 16, 100, sequences=3 - n) for n in range(3)]
    (placement,) = place(ClusterView((prefill, *decoders), (WaitingView("r", 0.0, 5, 5),)))
    assert placement.decode == "d2"


def test_the_registry_names_the_policy() -> None:
    assert isinstance(POLICIES["fcfs"](BUDGET), FcfsPolicy)
