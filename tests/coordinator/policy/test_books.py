from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.journal import Journal
from coordinator.policy.plan import GROUPS
from coordinator.policy.view import Placement
from coordinator.policy.work import Share, Work
from core.stages import COUPLED, ModalityGroup
from tests.coordinator.policy.cluster import books_of, instance, pictures, text

verbs = st.lists(
    st.tuples(
        st.sampled_from(["queue", "place", "place warm", "encoded", "prefilled", "token", "end"]),
        st.integers(0, 5),
    ),
    max_size=60,
)


@given(verbs)
def test_sums_are_those_of_the_work_whatever_happens(steps):
    books = books_of(*(instance(f"i{number}") for number in range(3)))
    works = [text(f"t{n}") if n % 2 else pictures(f"m{n}", sizes=(700, 300)) for n in range(6)]
    known = set()
    for verb, number in steps:
        _do(books, works[number], verb, known)
        books.check_integrity()
    for work in works:
        books.end(work)
    assert all(
        book.is_idle and book.load.encode_s == book.load.prefill_s == 0 for book in books.instances.values()
    )
    assert all(books.waiting_load(group).prefill_s == 0 for group in GROUPS)


def _do(books, work, verb, known):
    if verb == "queue" and work.request_id not in known:
        work.placement = None
        books.queue(work)
        known.add(work.request_id)
    elif verb == "end":
        books.end(work)
        known.discard(work.request_id)
    elif work.request_id in known and verb == "place" and work.placement is None:
        names = tuple(f"i{number % 3}" for number in range(len(work.media)))
        work.placement = Placement(work.request_id, names, "i0", "i2", 0.0)
        books.note(work)
    elif work.request_id in known and verb == "place warm" and work.placement is None:
        names = tuple(f"i{number % 3}" for number in range(len(work.media)))
        held, skipped = (frozenset({1}), frozenset({0})) if work.media else (frozenset(), frozenset())
        saved = {"prefix": "i1", "prefix_tokens": 150, "saved_s": work.prefill_s / 2}
        work.placement = Placement(
            work.request_id, names, "i0", "i2", 0.0, held=held, skipped=skipped, **saved
        )
        books.note(work)
    elif work.request_id in books.running:
        work.encoded |= set(range(len(work.media))) if verb == "encoded" else set()
        work.is_prefilled |= verb == "prefilled"
        work.num_outputs += verb == "token"
        books.note(work)


shares = st.builds(
    Share,
    encode_items=st.integers(0, 2),
    encode_s=st.floats(0, 1),
    prefills=st.integers(0, 1),
    prefill_s=st.floats(0, 1),
    decoding=st.integers(1, 2),
    **{name: st.integers(0, 99) for name in ("kv_blocks", "embedding_blocks", "sequences", "context_tokens")},
)


@given(shares, shares, shares)
def test_to_replace_is_to_take_off_and_to_add(others, before, after):
    """To the last bit of the seconds."""
    one, other = Share(), Share()
    for load in (one, other):
        load.add(others)
        load.add(before)
    one.add(before, -1)
    one.add(after)
    other.replace(before, after)
    assert one == other


@given(st.lists(st.integers(0, 40), max_size=6))
def test_tokens_shown_are_noted_for_all_of_a_decoder(shown):
    """Up to the expected end only its context grows, past it more blocks are promised too."""
    books = books_of(instance("i0"), instance("i1"))
    works = [text(f"t{n}", output=30) for n in range(3)]
    for number, work in enumerate(works):
        books.queue(work)
        work.placement = Placement(work.request_id, (), "i0", "i1", 0.0)
        work.is_prefilled = number != 2
        books.note(work)
    start = books.journal.end
    for more in shown:
        books.note_outputs("i1", [(work, work.num_outputs + more) for work in works])
        books.check_integrity()
    assert books.instances["i1"].load.context_tokens == sum(work.context_tokens for work in works[:2])
    assert ("i1" in books.journal.since(start)) >= any(shown)


def test_the_journal_names_what_changed_since():
    journal = Journal(most_entries=4)
    start = journal.end
    for name in ("a", "b", "a"):
        journal.add([name])
    assert journal.since(start) == {"a", "b"}
    assert journal.since(journal.end) == set()


def test_a_reader_that_was_away_too_long_is_told_to_look_at_all():
    journal = Journal(most_entries=2)
    start = journal.end
    for name in ("a", "b", "c"):
        journal.add([name])
    assert journal.since(start) is None
    assert journal.since(2) == {"c"}


def test_what_lay_on_an_instance_that_went_is_not_taken_off_its_successor():
    books = Books()
    for _ in range(2):
        books.add_instance(InstanceBook("i", COUPLED, ModalityGroup.SHARED, 16, 100))
        work = Work("r", 0.0, 160, 16)
        books.queue(work)
        work.placement = Placement("r", (), "i", "i", 0.0)
        books.note(work)
        assert books.instances["i"].load.kv_blocks == 11
        books.remove_instance("i")
        books.add_instance(InstanceBook("i", COUPLED, ModalityGroup.SHARED, 16, 100))
        books.end(work)
        assert books.instances["i"].is_idle
        books.check_integrity()
