from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.books import Books
from coordinator.policy.cost_model import CostModel
from coordinator.policy.costing import Costing
from coordinator.policy.decisions import DecisionRing
from coordinator.policy.dispatch import Dispatch
from coordinator.policy.lateness import LateYields
from coordinator.policy.plan import GROUPS
from coordinator.policy.scheduler import Scheduler, Slo
from coordinator.policy.sets import make_scheduler
from coordinator.policy.turns import FairTurns
from coordinator.policy.work import Work
from core.stages import ModalityGroup, Stage
from tests.coordinator.policy.cluster import PROFILE, books_of, instance, pictures, text
from tests.coordinator.policy.clusters import clusters
from tests.coordinator.policy.driver import dispatched

SLO = Slo(2.0, 0.1)
OPEN_TOKENS = Costing(CostModel(PROFILE)).open_tokens


def elastic() -> Scheduler:
    return make_scheduler("static:equal", PROFILE, SLO)


def queued(books: Books, *works: Work) -> Books:
    for work in works:
        books.queue(work)
    return books


def test_text_goes_in_order_of_arrival():
    books = queued(books_of(instance("a")), text("late", 2.0), text("early", 1.0))
    assert [each.request_id for each in dispatched(elastic(), books)] == ["early", "late"]


def test_priority_goes_before_arrival_but_only_so_far():
    books = queued(books_of(instance("a")), text("plain", 0.0), text("urgent", 5.0, priority=1))
    queued(books, text("old", -30.0))
    assert [each.request_id for each in dispatched(elastic(), books)] == ["old", "urgent", "plain"]


def test_open_prompt_tokens_stay_within_the_budget():
    books = queued(books_of(instance("a")), *(text(f"t{n}", n, prompt=1500) for n in range(9)))
    dispatched(elastic(), books)
    assert OPEN_TOKENS - 1500 < books.instances["a"].load.text_tokens <= OPEN_TOKENS


def test_text_does_not_queue_behind_text_where_that_makes_it_late():
    """Half a target of 60 ms is less than one of these prompts takes."""
    emp = make_scheduler("emp", PROFILE, Slo(0.06, 0.1))
    books = queued(books_of(instance("a"), instance("b")), *(text(f"t{n}", prompt=800) for n in range(9)))
    assert [each.prefill for each in dispatched(emp, books)] == ["a", "b"]
    roomy = make_scheduler("emp", PROFILE, SLO)
    books = queued(books_of(instance("a"), instance("b")), *(text(f"t{n}", prompt=800) for n in range(9)))
    assert len(dispatched(roomy, books)) > 2


def test_one_longer_than_the_budget_goes_to_an_idle_instance():
    books = queued(books_of(instance("a")), text("long", prompt=OPEN_TOKENS + 1), text("next", 1.0))
    assert [each.request_id for each in dispatched(elastic(), books)] == ["long"]


def test_pictures_of_one_request_are_spread():
    books = books_of(instance("p", "p"), instance("d", "d"), *(instance(f"e{n}", "e") for n in range(3)))
    (placement,) = dispatched(elastic(), queued(books, pictures("r", sizes=(500, 1000, 1000, 500))))
    assert sorted(placement.encode.count(f"e{n}") for n in range(3)) == [1, 1, 2]
    assert placement.encode[1] != placement.encode[2]


def test_an_encoder_holds_no_more_than_one_request_ahead():
    books = books_of(instance("p", "p"), instance("d", "d"), instance("e", "e"))
    assert len(dispatched(elastic(), queued(books, *(pictures(f"r{n}", n) for n in range(5))))) == 2


def test_a_small_picture_does_not_wait_for_an_encoder_of_large_ones():
    """Of 10 and 405 ms; the third large one waits for the encoder, and in order the next small one for it."""
    books = books_of(instance("e", "e"), *(instance(f"p{n}", "pd") for n in range(4)))
    queued(books, pictures("large", 0.0, (4000,)), pictures("second", 1.0, (4000,)))
    queued(books, pictures("small", 2.0, (50,)), pictures("third", 3.0, (4000,)), pictures("s", 4.0, (50,)))
    assert [each.request_id for each in dispatched(elastic(), books)] == ["large", "second", "small"]


def test_open_media_do_not_take_the_budget_of_text():
    books = books_of(instance("s", "pd"), *(instance(f"e{n}", "e") for n in range(8)))
    queued(books, *(pictures(f"r{n}", n, sizes=(1000,)) for n in range(8)), text("t", 9.0))
    assert "t" in [each.request_id for each in dispatched(elastic(), books)]
    assert books.num_waiting(ModalityGroup.MULTIMODAL) > 0


def test_text_does_not_wait_behind_media():
    books = queued(books_of(instance("a")), *(pictures(f"r{n}", n) for n in range(4)), text("t", 9.0))
    assert "t" in [each.request_id for each in dispatched(elastic(), books)][:2]


def behind_text(prompt: int) -> Books:
    """An instance that has a text of so many tokens before it, and a picture that waits."""
    books = queued(books_of(instance("a"), instance("d", "d")), text("t", prompt=prompt))
    dispatched(elastic(), books)
    return queued(books, pictures("r"))


def test_media_wait_until_little_text_is_left_where_they_would_begin():
    """300 tokens take less than a quarter of a full step, 1,000 take more."""
    emp = make_scheduler("emp", PROFILE, SLO)
    assert not dispatched(emp, behind_text(1000))
    assert [each.request_id for each in dispatched(emp, behind_text(300))] == ["r"]


def test_media_wait_for_no_text_in_strict_order():
    assert [each.request_id for each in dispatched(elastic(), behind_text(1000))] == ["r"]


@pytest.mark.parametrize("few", [0, 64])
def test_media_that_have_waited_longest_go_wherever_text_is(few):
    """Also where nothing else has changed since they found no room."""
    slo = Slo(2.0, 0.1, late_wait_s=30.0)
    dispatch = Dispatch(
        Costing(CostModel(PROFILE)), FairTurns(), DecisionRing(), queueing=LateYields(slo), few=few
    )
    books = behind_text(1000)
    assert dispatch.place(books, 29.9) is None
    assert dispatch.place(books, 30.0).request_id == "r"


def test_coupled_keeps_one_order_and_one_instance_per_request():
    books = queued(books_of(instance("a"), instance("b")), pictures("r", sizes=(900, 900)), text("t", 1.0))
    first, second = dispatched(make_scheduler("coupled", PROFILE, SLO), books)
    assert first.request_id == "r"
    assert len(first.instance_ids) == 1
    assert second.instance_ids.isdisjoint(first.instance_ids)


def test_a_group_without_a_stage_waits():
    books = queued(books_of(instance("p", "p", "text"), instance("d", "d", "text")), pictures("r"))
    assert not dispatched(elastic(), books)


def test_decode_stays_where_prefill_was_if_that_is_not_worse():
    books = queued(books_of(instance("a", "pd"), instance("b", "d")), text("t"))
    (placement,) = dispatched(elastic(), books)
    assert placement.decode == placement.prefill == "a"


def test_the_numbers_weighed_are_kept():
    books, scheduler = queued(books_of(instance("a")), text("t")), elastic()
    dispatched(scheduler, books, now_s=3.0)
    (decision,) = scheduler.decisions.about("t")
    assert decision.numbers["waited_s"] == 3.0
    assert decision.numbers["first_token_in_s"] > 0


works = st.lists(
    st.one_of(
        st.builds(text, st.uuids().map(str), st.floats(0, 9), st.integers(1, 9000), st.integers(1, 500)),
        st.builds(
            pictures,
            st.uuids().map(str),
            st.floats(0, 9),
            st.lists(st.integers(1, 3000), min_size=1, max_size=4).map(tuple),
        ),
    ),
    max_size=30,
)


@given(clusters, works, st.sampled_from(["coupled", "static:equal"]))
def test_whatever_waits_promises_are_kept(cluster, waiting, name):
    """No block is promised twice, roles and groups are respected, each group keeps its order."""
    books = books_of(*(instance(f"i{n}", *each) for n, each in enumerate(cluster)))
    queued(books, *waiting)
    order = {group: [work.request_id for work in books.waiting(group)] for group in GROUPS}
    group_of = {work.request_id: work.group for work in waiting}
    placements = dispatched(make_scheduler(name, PROFILE, SLO), books)
    books.check_integrity()
    for group in GROUPS:
        placed = [each.request_id for each in placements if group_of[each.request_id] is group]
        assert placed == order[group][: len(placed)]
    for each in placements:
        _assert_roles(books, each, group_of[each.request_id])
    for book in books.instances.values():
        assert book.free_kv_blocks >= 0
        assert book.has_embedding_room(0)


@pytest.mark.parametrize("few", [0, 64])
def test_a_decoder_takes_no_more_than_may_take_turns_in_time(few):
    """Steps take 10 ms: with a target of 15 ms two places are for two, of 24 ms for more."""
    for tpot_s, most in ((0.015, 2), (0.024, 3), (inf, 6)):
        books = books_of(instance("p", "p"), instance("d", "d", max_sequences=2))
        queued(books, *(text(f"r{number}", number / 10) for number in range(6)))
        costing = Costing(CostModel(PROFILE), tpot_s)
        dispatch = Dispatch(costing, FairTurns(), DecisionRing(), few=few)
        assert len(dispatched(dispatch, books)) == most
        books.end(next(iter(books.running.values())))
        assert len(dispatched(dispatch, books)) == min(1, 6 - most)


def _assert_roles(books, placement, group):
    for stage, names in zip(Stage, (placement.encode, [placement.prefill], [placement.decode]), strict=True):
        assert all(books.instances[name].plays(stage) for name in names)
    assert all(
        books.instances[name].group in (group, ModalityGroup.SHARED) for name in placement.instance_ids
    )


@given(works, st.sampled_from(["epd", "pd"]))
def test_an_idle_cluster_always_takes_one(waiting, roles):
    books = books_of(instance("a", roles, kv_blocks=100_000), instance("e", "e"))
    fitting = [work for work in waiting if sum(item.embedding_blocks for item in work.media) <= 2000]
    assert bool(dispatched(elastic(), queued(books, *fitting))) == bool(fitting)


def test_a_media_queue_leaves_the_instance_to_text_soon():
    """However many pictures wait, what is open on an instance is one request and one ahead."""
    books = queued(books_of(instance("a", "epd")), *(pictures(f"r{n}", n * 0.01) for n in range(50)))
    dispatched(make_scheduler("emp", PROFILE, SLO), books)
    assert 1 <= books.instances["a"].load.prefills <= 3


def test_media_do_not_queue_on_an_instance_where_that_makes_them_late():
    """One that takes half the target finds another at work: it waits where it can still go elsewhere."""

    def open_with(slo: Slo) -> int:
        books = queued(books_of(instance("a", "epd")), *(pictures(f"r{n}", sizes=(4000,)) for n in range(3)))
        dispatched(make_scheduler("emp", PROFILE, slo), books)
        return books.instances["a"].load.prefills

    own_s = pictures("r", sizes=(4000,)).encode_s + pictures("r", sizes=(4000,)).prefill_s
    assert open_with(Slo(2.0, 0.1, 8 * own_s)) == 2
    assert open_with(Slo(2.0, 0.1, 2 * own_s)) == 1
