"""Seconds saved by caches against seconds queued."""

from dataclasses import replace

import pytest

from coordinator.policy.cost_model import CostModel
from coordinator.policy.scheduler import Slo
from coordinator.policy.sets import make_scheduler
from coordinator.policy.warmth import Warmth
from core.costs import MoveCosts
from tests.coordinator.policy.cluster import PROFILE, books_of, instance, pictures, text
from tests.coordinator.policy.driver import apply, dispatched
from tests.coordinator.policy.warm import KnownWarmth

SLOW_LINKS = replace(PROFILE, kv_move=MoveCosts(10.0, 1e9))
SLO = Slo(2.0, 0.1)


def scheduler(warmth, policy="emp", profile=PROFILE, **more):
    return make_scheduler(policy, profile, SLO, warmth=KnownWarmth(default=warmth), **more)


def placed(books, work, warmth, **more):
    books.queue(work)
    (placement,) = dispatched(scheduler(warmth, **more), books)
    books.check_integrity()
    return placement


def test_of_idle_instances_the_one_that_has_the_prefix_is_chosen():
    books = books_of(*(instance(f"i{n}") for n in range(3)))
    placement = placed(books, text("t", prompt=4000), Warmth({"i1": 3200, "i2": 1600}))
    assert (placement.prefill, placement.prefix, placement.prefix_tokens) == ("i1", "i1", 3200)


def test_what_is_left_lies_on_the_instance():
    books = books_of(instance("i0"))
    work = text("t", prompt=4000)
    placement = placed(books, work, Warmth({"i0": 3200}))
    load, model = books.instances["i0"].load, CostModel(PROFILE)
    assert load.prefill_tokens == 800
    assert load.prefill_s == pytest.approx(model.prefill_s(800, 3200))
    assert placement.saved_s == pytest.approx(work.prefill_s - model.prefill_s(800, 3200))
    assert load.kv_blocks == -(-work.promised_tokens // 16)  # the prefix may be gone


def test_the_last_prompt_token_is_always_computed():
    books = books_of(instance("i0"))
    assert placed(books, text("t", prompt=320), Warmth({"i0": 320})).prefix_tokens == 319
    assert books.instances["i0"].load.prefill_tokens == 1


@pytest.mark.parametrize(("profile", "has_pulled"), [(PROFILE, True), (SLOW_LINKS, False)])
def test_the_warm_instance_gets_no_herd(profile, has_pulled):
    """All ask for what it has: others take over when its queue outweighs that, pulling if that is quick."""
    warm = Warmth({"i0": 1600})
    books = books_of(*(instance(f"i{n}") for n in range(4)))
    for number in range(8):
        books.queue(text(f"t{number}", prompt=2000))
    placements = dispatched(scheduler(warm, profile=profile), books)
    assert placements[0].prefill == "i0"
    assert {each.prefill for each in placements} == set(books.instances)
    others = [each for each in placements if each.prefill != "i0"]
    assert {each.prefix for each in others} == ({"i0"} if has_pulled else {None})


def test_coupled_replicas_use_their_own_caches_only():
    books = books_of(*(instance(f"i{n}") for n in range(2)))
    for number in range(8):
        books.queue(text(f"t{number}", prompt=2000))
    placements = dispatched(scheduler(Warmth({"i1": 1600}), "coupled"), books)
    assert {(each.prefill, each.prefix) for each in placements} == {("i1", "i1"), ("i0", None)}


def test_a_part_of_the_prefix_is_kept_and_the_rest_pulled():
    books = books_of(instance("d", "d"), instance("p", "p"))
    placement = placed(books, text("t", prompt=4000), Warmth({"p": 160, "d": 3200}))
    assert (placement.prefill, placement.prefix, placement.prefix_tokens) == ("p", "d", 3200)


def test_an_embedding_comes_from_a_holder_whatever_that_plays():
    books = books_of(instance("e", "e"), instance("p", "p"), instance("d", "d"))
    work = pictures("m", sizes=(1000, 500))
    placement = placed(books, work, Warmth({}, (frozenset({"d"}), frozenset())))
    assert (placement.encode, placement.held) == (("d", "e"), {0})
    assert books.instances["d"].load.encode_items == 0
    assert books.instances["e"].load.encode_s == work.media[1].encode_s


def test_of_several_holders_the_least_busy_one_answers():
    books = books_of(instance("e", "e"), instance("p", "p"), instance("d", "d"), instance("f", "e"))
    placed(books, pictures("busy"), Warmth({}, (frozenset(),)))
    busy, idle = sorted(("e", "f"), key=lambda name: -books.instances[name].load.encode_s)
    placement = placed(books, pictures("m", 1.0), Warmth({}, (frozenset({"e", "f"}),)))
    assert placement.encode == (idle,) != (busy,)


def test_items_in_the_prefix_are_skipped_and_somebody_would_encode_them():
    books = books_of(instance("e", "e"), instance("p", "p"), instance("d", "d"))
    placement = placed(books, pictures("m", sizes=(1000, 500)), Warmth({"p": 1008}))
    assert (placement.encode, placement.skipped, placement.held) == (("e", "e"), {0}, set())
    assert books.instances["e"].load.encode_items == 1


def test_a_request_of_which_all_is_cached_needs_no_encoder_with_room():
    books = books_of(instance("e", "e"), instance("p", "p"), instance("d", "d"))
    warmth = KnownWarmth({"warm": Warmth({"p": 1040}, (frozenset({"e"}),))})
    emp = make_scheduler("emp", PROFILE, Slo(2.0, 0.1), warmth=warmth)
    for number in range(4):
        books.queue(pictures(f"cold{number}", number))
    dispatched(emp, books)
    for work in list(books.running.values()):
        work.is_prefilled = work.is_handed_over = True  # their encodes stay
        books.note(work)
    books.queue(pictures("warm", -99.0))
    (placement,) = dispatched(emp, books)
    assert (placement.request_id, placement.skipped) == ("warm", {0})


def test_holders_that_take_no_work_are_not_asked():
    books = books_of(instance("e", "e"), instance("p", "p"), instance("d", "d"), instance("x", "e"))
    books.set_open("x", False)
    placement = placed(books, pictures("m"), Warmth({"x": 800}, (frozenset({"x", "gone"}),)))
    assert (placement.encode, placement.held) == (("e",), set())
    assert placement.prefix == "x"  # it can still be pulled from


def test_without_the_piece_caches_are_not_looked_at():
    books = books_of(instance("i0"), instance("i1"))
    placement = placed(books, text("t"), Warmth({"i1": 160}), without=["cache-aware"])
    assert (placement.prefill, placement.prefix) == ("i0", None)


def test_the_reasons_say_what_was_cached():
    books, emp = (
        books_of(instance("e", "e"), instance("p", "p"), instance("d", "d")),
        scheduler(Warmth({"d": 1008}, (frozenset(), frozenset({"d"})))),
    )
    books.queue(pictures("m", sizes=(1000, 500)))
    dispatched(emp, books)
    (decision,) = emp.decisions.about("m")
    assert decision.choice.endswith("1008 tokens pulled from d, 1 held, 1 skipped")
    wanted = {"cached_tokens": 1008.0, "held_items": 1.0, "skipped_items": 1.0}
    assert wanted.items() <= decision.numbers.items()
    assert decision.numbers["pull_s"] < decision.numbers["saved_s"]


def test_a_blocked_request_is_looked_at_again_when_caches_changed():
    """It does not fit behind what an instance has open, but for what is cached of it."""
    warmth = KnownWarmth()
    emp = make_scheduler("emp", PROFILE, SLO, warmth=warmth)
    books = books_of(instance("i0"))
    apply(books, _sole(emp, books, text("first", prompt=3000)))
    books.queue(text("t", 1.0, prompt=4000))
    assert emp.place(books, 1.0) is None
    warmth.default, warmth.version = Warmth({"i0": 3200}), 1
    assert emp.place(books, 1.0) is not None


def _sole(emp, books, work):
    books.queue(work)
    return emp.place(books, 0.0)
