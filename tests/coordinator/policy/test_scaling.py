"""Decode and encode auto-scaling, whatever lies on the instances."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.adjust import Adjuster
from coordinator.policy.pieces import ALL_PIECES
from coordinator.policy.scaling import decode_bottleneck, encode_bottleneck
from core.stages import ModalityGroup, Stage
from tests.coordinator.policy.cluster import books_of, instance, pictures
from tests.coordinator.policy.test_standing import COSTING, P_TEXT, SLO, changes, standing, text_cluster

MEDIA = ModalityGroup.MULTIMODAL
held = st.lists(st.integers(0, 120), min_size=1, max_size=4)


def bottleneck(decoding: list[int], fewer: int = 0) -> str | None:
    return decode_bottleneck(standing(text_cluster(1, len(decoding), 0, decoding)), COSTING, SLO, fewer)


@given(held, st.integers(1, 40))
def test_more_to_decode_never_makes_decode_suffice(decoding: list[int], more: int) -> None:
    fuller = [count + more for count in decoding]
    assert bottleneck(decoding) is None or bottleneck(fuller) is not None


@given(held)
def test_fewer_instances_never_suffice_where_more_do_not(decoding: list[int]) -> None:
    if sum(decoding):
        assert bottleneck(decoding) is None or bottleneck(decoding, fewer=1) is not None
        assert bottleneck(decoding, fewer=len(decoding)) == "nobody decodes"


@given(held)
def test_what_decode_was_lent_is_not_given_back_at_once(decoding: list[int]) -> None:
    """Nothing has changed meanwhile, so that decode does not do without it."""
    books = text_cluster(2, len(decoding), 0, decoding)
    adjuster = Adjuster(COSTING, SLO, ALL_PIECES)
    grown = [each for each in changes(books, adjuster=adjuster) if each.piece == "decode scaling"]
    for change in grown:
        book = books.instances[change.instance_id]
        assert bottleneck(decoding) is not None
        assert book.roles == {Stage.PREFILL}
        adjuster.made(change, P_TEXT)
        books.set_roles(change.instance_id, change.to.roles, change.to.group, 1.0)
        for after in changes(books, adjuster=adjuster):
            assert after.instance_id != change.instance_id


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 40), st.integers(100, 4000))
def test_encode_is_short_where_its_wait_is_the_longer_one_and_half_of_the_target(
    encoders: int, prefills: int, waiting: int, size: int
) -> None:
    names = [f"e{n}" for n in range(encoders)] + [f"p{n}" for n in range(prefills)] + ["d0"]
    books = books_of(*(instance(name, name[0], "multimodal") for name in names))
    for number in range(waiting):
        books.queue(pictures(f"m{number:02}", sizes=(size,)))
    own = standing(books, MEDIA)
    alone = pictures("alone", sizes=(size,))
    wait_s = waiting * alone.encode_s / encoders
    assert own.wait_s(Stage.ENCODE) == pytest.approx(wait_s)
    is_short = wait_s > waiting * alone.prefill_s / prefills and wait_s > SLO.group_ttft_s(MEDIA) / 2
    assert (encode_bottleneck(own, SLO) is not None) == is_short
