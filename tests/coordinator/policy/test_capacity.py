from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.capacity import cluster_capacity
from coordinator.policy.scheduler import Slo
from coordinator.policy.sets import make_scheduler
from coordinator.policy.work import MediaWork, Work
from core.stages import COUPLED, ModalityGroup, Roles, Stage
from tests.quick_profile import make_profile

P, D = frozenset({Stage.PREFILL}), frozenset({Stage.DECODE})
PROFILE = make_profile()


def book(
    instance_id: str,
    roles: Roles,
    block_tokens: int,
    total_kv_blocks: int,
    total_embedding_blocks: int | None = None,
) -> InstanceBook:
    return InstanceBook(
        instance_id, roles, ModalityGroup.SHARED, block_tokens, total_kv_blocks, total_embedding_blocks
    )


def test_the_largest_of_each_stage() -> None:
    views = [
        book("p", P, 16, total_kv_blocks=10),
        book("d0", D, 16, total_kv_blocks=20),
        book("d1", D, 8, total_kv_blocks=50),
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
        book("p0", P, 16, total_kv_blocks=10, total_embedding_blocks=100),
        book("p1", P, 16, total_kv_blocks=100, total_embedding_blocks=4),
    ]
    capacity = cluster_capacity(views)
    assert capacity.fits_prompt(1600, [32, 32])
    assert capacity.fits_prompt(160, [1600])
    assert not capacity.fits_prompt(161, [32, 33])


roles = st.frozensets(st.sampled_from(Stage), min_size=1)
idle = st.builds(
    book,
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
    instances: list[InstanceBook], prompt: int, reserve: int, media: list[int]
) -> None:
    """So nothing waits for ever at the head of the queue, and nothing servable is refused."""
    capacity = cluster_capacity(instances)
    books = Books()
    for each in instances:
        books.add_instance(each)
    books.queue(Work("r", 0.0, prompt, reserve, media=tuple(MediaWork(tokens) for tokens in media)))
    needed = COUPLED if media else P | D
    is_played = needed <= frozenset().union(*(each.roles for each in instances))
    could = is_played and capacity.fits_prompt(prompt, media) and capacity.fits_total(prompt + reserve)
    placement = make_scheduler("fixed", PROFILE, Slo(1.0, 1.0)).place(books, 0.0)
    assert (placement is not None) == could
