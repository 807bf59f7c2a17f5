import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.pins import left_by_pinned
from core.stages import ModalityGroup
from tests.coordinator.policy.cluster import instance

TEXT, MEDIA, SHARED = ModalityGroup.TEXT, ModalityGroup.MULTIMODAL, ModalityGroup.SHARED


def cluster(num_free: int, *pinned: ModalityGroup):
    books = [instance(f"free{number}") for number in range(num_free)]
    for number, group in enumerate(pinned):
        books.append(instance(f"pinned{number}", group=group.value))
        books[-1].is_pinned = True
    return books


def test_nothing_pinned_leaves_all():
    assert left_by_pinned(cluster(4), {TEXT: 1.0, MEDIA: 2.0}) == {TEXT: 1.0, MEDIA: 1.0}


def test_one_of_a_group_takes_its_part_of_that_group():
    left = left_by_pinned(cluster(3, TEXT), {TEXT: 2.0, MEDIA: 2.0})
    assert left == {TEXT: 0.5, MEDIA: 1.0}


def test_a_shared_one_takes_of_both():
    left = left_by_pinned(cluster(3, SHARED), {TEXT: 1.0, MEDIA: 3.0})
    assert left == {TEXT: 0.75, MEDIA: 0.75}


def test_no_group_is_left_less_than_nothing():
    assert left_by_pinned(cluster(1, TEXT, TEXT), {TEXT: 0.1, MEDIA: 3.0})[TEXT] == 0.0


def test_a_drained_one_takes_nothing_and_does_not_count():
    books = cluster(3, TEXT, TEXT)
    books[-1].is_drained = True
    assert left_by_pinned(books, {TEXT: 2.0, MEDIA: 2.0}) == {TEXT: 0.5, MEDIA: 1.0}


@given(st.integers(0, 9), st.lists(st.sampled_from([TEXT, MEDIA, SHARED]), max_size=9), st.floats(0.1, 9))
def test_together_they_take_at_most_their_part_of_all(num_free, pinned, text):
    work = {TEXT: text, MEDIA: 2.0}
    left = left_by_pinned(cluster(num_free, *pinned), work)
    taken = sum(work[group] * (1 - left[group]) for group in work)
    assert taken <= (text + 2.0) * len(pinned) / max(1, num_free + len(pinned)) + 1e-9
    if SHARED not in pinned and TEXT not in pinned:
        assert left[TEXT] == pytest.approx(1.0)
