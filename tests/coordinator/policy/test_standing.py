"""Gain and cost of single changes: the fast loop and its parts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.adjust import Adjuster
from coordinator.policy.allocation import e_max_for_prefill, prefill_change
from coordinator.policy.change import best_change
from coordinator.policy.cost_model import CostModel
from coordinator.policy.costing import Costing
from coordinator.policy.offers import Need, Terms, offers
from coordinator.policy.pieces import ALL_PIECES, Piece
from coordinator.policy.plan import Assignment
from coordinator.policy.scaling import decode_bottleneck, encode_bottleneck
from coordinator.policy.scheduler import Slo
from coordinator.policy.standing import Standing
from coordinator.policy.view import Placement
from core.stages import ModalityGroup, Stage, parse_roles
from tests.coordinator.policy.cluster import PROFILE, books_of, instance, pictures, text

TEXT, MEDIA = ModalityGroup.TEXT, ModalityGroup.MULTIMODAL
SLO = Slo(0.5, 0.1, 2.0)
COSTING = Costing(CostModel(PROFILE))
ANYONE = Terms(lambda _: True, 1.0, SLO.ttft_s)
P_TEXT = Assignment(parse_roles("p"), TEXT)


def text_cluster(prefills=1, decodes=2, waiting=0, decoding=(0, 0), prompt=2000):
    """A text group, with so many sequences on each decode instance."""
    names = [f"p{n}" for n in range(prefills)], [f"d{n}" for n in range(decodes)]
    books = books_of(
        *(instance(name, "p", "text") for name in names[0]),
        *(instance(name, "d", "text") for name in names[1]),
    )
    for name, count in zip(names[1], decoding, strict=False):
        for number in range(count):
            work = text(f"{name}-{number}", output=100)
            books.queue(work)
            work.placement, work.is_prefilled, work.is_handed_over = (
                Placement(work.request_id, (), "p0", name, 0.0),
                True,
                True,
            )
            books.note(work)
    for number in range(waiting):
        books.queue(text(f"w{number}", number * 0.01, prompt=prompt))
    return books


def standing(books, group=TEXT, output_tokens=100.0):
    members = {name: book.roles for name, book in books.instances.items() if book.group is group}
    return Standing(group, members, books, COSTING, output_tokens)


@given(st.integers(1, 6), st.integers(1, 40))
def test_gain_of_a_prefill_instance_is_that_of_the_formula(prefills, waiting):
    """Sum over R_p of (T(R_p, E_p) - T(R_p, E_p + e)) / input length, for equal prompts."""
    own = standing(text_cluster(prefills, 2, waiting))
    seconds = PROFILE.step.prefill_s(2000, PROFILE.chunk_tokens)
    finish = [
        [seconds * (1 + number // count) for number in range(waiting)] for count in (prefills, prefills + 1)
    ]
    expected = sum(before - after for before, after in zip(*finish, strict=True)) / 2000
    assert own.gain(Stage.PREFILL, SLO.ttft_s) == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 60), st.integers(0, 60))
def test_cost_of_a_decode_instance_grows_with_what_it_holds_and_with_w(first, second):
    own = standing(text_cluster(1, 2, 0, (first, second)))
    book = own.players[Stage.DECODE][0]
    low, high = (own.harm(Stage.DECODE, book, weight, SLO.ttft_s) for weight in (0.5, 2.0))
    assert 0 <= low <= high
    moved_s = first * COSTING.model.kv_move_s(200) / 100
    assert low >= moved_s * (1 - 1e-9)


def test_cost_is_infinite_where_the_others_have_no_room():
    books = text_cluster(1, 2, 0, (40, 0))
    books.instances["d1"].total_kv_blocks = 10
    own = standing(books)
    assert own.harm(Stage.DECODE, books.instances["d0"], 1.0, SLO.ttft_s) == math.inf


def test_e_max_is_the_decode_instance_with_most_unused_blocks():
    own = standing(text_cluster(1, 3, 4, (5, 1, 9)))
    assert e_max_for_prefill(own, lambda _: True).instance_id == "d1"
    assert e_max_for_prefill(own, lambda book: book.instance_id != "d1").instance_id == "d0"


def test_the_last_decode_instance_is_never_taken_for_prefill():
    assert e_max_for_prefill(standing(text_cluster(1, 1, 4)), lambda _: True) is None


def test_prefill_takes_an_instance_where_the_gain_is_larger_and_only_there():
    crowded = best_change(prefill_change(standing(text_cluster(1, 2, 30, (2, 2))), P_TEXT, ANYONE))
    assert (crowded.instance_id, crowded.to) == ("d0", P_TEXT)
    assert crowded.gain > crowded.cost > 0
    calm = prefill_change(standing(text_cluster(1, 2, 1, (200, 200))), P_TEXT, ANYONE)
    assert best_change(calm) is None


def test_w_decides_between_those_who_wait_and_those_who_decode():
    books = text_cluster(1, 2, 12, (10, 10))
    changes = [
        best_change(prefill_change(standing(books), P_TEXT, ANYONE._replace(weight=weight)))
        for weight in (0.01, 100.0)
    ]
    assert changes[0] is not None
    assert changes[1] is None


@given(st.lists(st.integers(0, 50), min_size=2, max_size=5), st.integers(2, 30))
def test_the_victim_is_the_one_that_holds_least(decoding, waiting):
    books = text_cluster(1, len(decoding), waiting, decoding)
    own = standing(books)
    found = list(offers("balancer reactive", Need(Stage.PREFILL, P_TEXT, own), own, ANYONE))
    assert len(found) == 1
    for change in found:
        assert books.instances[change.instance_id].load.sequences == min(decoding)


def tight(one):
    """A target that its steps meet with a third of it to spare."""
    return Slo(0.5, 1.5 * one.step_s(1), 2.0)


def test_decode_is_a_bottleneck_past_its_knee_or_where_blocks_are_short():
    calm = standing(text_cluster(1, 2, 0, (4, 4)))
    assert decode_bottleneck(calm, COSTING, SLO) is None
    past = standing(text_cluster(1, 1, 0, (COSTING.model.decode_knee(200) + 1,)))
    assert "knee" in decode_bottleneck(past, COSTING, tight(past))
    busy = standing(text_cluster(1, 1, 0, (4,)))
    assert "target" in decode_bottleneck(busy, COSTING, Slo(0.5, 0.9 * busy.step_s(1), 2.0))
    ample = Slo(0.5, 2.1 * past.step_s(1), 2.0)
    assert decode_bottleneck(past, COSTING, ample) is None  # nobody gains by shorter steps
    books = text_cluster(1, 1, 3, (1,))
    books.instances["d0"].total_kv_blocks = 200
    assert "blocks" in decode_bottleneck(standing(books), COSTING, SLO)


def test_encode_is_a_bottleneck_where_its_queue_is_the_longer_one():
    books = books_of(
        instance("e", "e", "multimodal"), instance("p", "p", "multimodal"), instance("d", "d", "multimodal")
    )
    assert encode_bottleneck(standing(books, MEDIA), SLO) is None
    for number in range(20):
        books.queue(pictures(f"m{number}", sizes=(1000,)))
    assert "wait" in encode_bottleneck(standing(books, MEDIA), SLO)


def changes(books, pieces=ALL_PIECES, adjuster=None):
    wanted = {name: Assignment(book.roles, book.group) for name, book in books.instances.items()}
    groups = {book.group for book in books.instances.values()}
    standings = {group: standing(books, group) for group in groups}
    return list((adjuster or Adjuster(COSTING, SLO, pieces)).changes(standings, wanted, ANYONE))


def test_decode_grows_from_prefill_and_gives_back_when_it_suffices():
    books = text_cluster(3, 1, 0, (COSTING.model.decode_knee(200) + 20,))
    adjuster = Adjuster(COSTING, tight(standing(books)), ALL_PIECES)
    (grown,) = changes(books, adjuster=adjuster)
    assert grown.piece == "decode scaling"
    assert grown.instance_id.startswith("p")
    adjuster.made(grown, P_TEXT)
    books.set_roles(grown.instance_id, grown.to.roles, grown.to.group, 1.0)
    assert changes(books, adjuster=adjuster) == []
    for work in list(books.running.values())[5:]:
        books.end(work)
    (back,) = changes(books, adjuster=adjuster)
    assert (back.instance_id, back.to) == (grown.instance_id, P_TEXT)


def test_a_late_group_takes_an_idle_instance_of_the_other():
    books = text_cluster(1, 1, 40, (3,))
    for name, roles in (("m0", "epd"), ("m1", "epd")):
        books.add_instance(instance(name, roles, "multimodal"))
    (change,) = changes(books)
    assert (change.piece, change.to) == ("balancer reactive", P_TEXT)
    assert change.instance_id == "m0"
    assert changes(books, ALL_PIECES - {Piece.BALANCER_REACTIVE}) == []


def test_encode_grows_inside_its_group_unless_switched_off():
    books = books_of(
        *(instance(name, name[0], "multimodal") for name in ("e0", "p0", "p1", "d0")),
    )
    for number in range(30):
        books.queue(pictures(f"m{number}", sizes=(4000,)))
    (change,) = changes(books)
    assert (change.piece, change.to.roles) == ("encode scaling", parse_roles("e"))
    off = ALL_PIECES - {Piece.ENCODE_SCALING, Piece.BALANCER_REACTIVE}
    assert all(each.piece != "encode scaling" for each in changes(books, off))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 60), st.lists(st.integers(0, 80), max_size=4))
def test_every_change_gains_more_than_it_costs(prefills, decodes, waiting, decoding):
    for change in changes(text_cluster(prefills, decodes, waiting, decoding)):
        assert change.gain > change.cost or change.gain == change.cost == 0
        assert math.isfinite(change.cost)
