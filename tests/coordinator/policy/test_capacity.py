from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.capacity import cluster_capacity
from coordinator.policy.fcfs import FcfsPolicy
from coordinator.policy.view import ClusterView, InstanceView, WaitingView
from core.stages import COUPLED, Stage

P, D = frozenset({Stage.PREFILL}), frozenset({Stage.DECODE})


def test_the_largest_of_each_stage() -> None:
    views = [
        InstanceView("p", P, 16, total_kv_blocks=10),
        InstanceView("d0", D, 16, total_kv_blocks=20),
        InstanceView("d1", D, 8, total_kv_blocks=50),
    ]
    capacity = cluster_capacity(views)
    assert (capacity.prompt_tokens, capacity.total_tokens) == (160, 400)
    assert capacity.fits_total(400)
    assert not capacity.fits_total(401)


def test_no_opinion_without_instances() -> None:
    capacity = cluster_capacity([])
    assert (capacity.prompt_tokens, capacity.total_tokens) == (None, None)
    assert capacity.fits_prompt(10**6, [10**6])
    assert capacity.fits_total(10**6)


def test_prompt_and_media_must_fit_the_same_instance() -> None:
    views = [
        InstanceView("p0", P, 16, total_kv_blocks=10, total_embedding_blocks=100),
        InstanceView("p1", P, 16, total_kv_blocks=100, total_embedding_blocks=4),
    ]
    capacity = cluster_capacity(views)
    assert capacity.fits_prompt(1600, [32, 32])
    assert capacity.fits_prompt(160, [1600])
    assert not capacity.fits_prompt(161, [32, 33])


roles = st.frozensets(st.sampled_from(Stage), min_size=1)
idle = st.builds(
    InstanceView,
    instance_id=st.uuids().map(str),
    roles=roles,
    block_tokens=st.sampled_from([8, 16]),
    total_kv_blocks=st.integers(1, 50),
    total_embedding_blocks=st.none() | st.integers(1, 10),
)


@given(
    st.lists(idle, max_size=5),
    st.integers(1, 500),
    st.integers(1, 500),
    st.lists(st.integers(1, 99), max_size=3),
)
def test_on_an_idle_cluster_what_could_fit_is_placed(
    instances: list[InstanceView], prompt: int, reserve: int, media: list[int]
) -> None:
    """So nothing waits for ever at the head of the queue, and nothing servable is refused."""
    capacity = cluster_capacity(instances)
    view = ClusterView(tuple(instances), (WaitingView("r", 0.0, prompt, reserve, tuple(media)),))
    needed = COUPLED if media else P | D
    is_played = needed <= frozenset().union(*(each.roles for each in instances))
    could = is_played and capacity.fits_prompt(prompt, media) and capacity.fits_total(prompt + reserve)
    assert bool(FcfsPolicy(512).place(view)) == could
