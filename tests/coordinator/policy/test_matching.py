from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.matching import matched
from coordinator.policy.plan import Assignment
from core.stages import ModalityGroup, parse_roles
from tests.coordinator.policy.cluster import instance

kinds = st.builds(
    Assignment,
    st.sampled_from(["e", "p", "d", "ep", "pd", "epd"]).map(parse_roles),
    st.sampled_from(list(ModalityGroup)),
)


def books_for(present):
    return {
        f"i{number}": instance(f"i{number}", "".join(s.value for s in each.roles), each.group.value)
        for number, each in enumerate(present)
    }


@given(st.lists(st.tuples(kinds, kinds), min_size=1, max_size=12))
def test_every_slot_is_filled_and_as_few_as_can_be_change(pairs):
    books = books_for([have for have, _ in pairs])
    present = {f"i{number}": have for number, (have, _) in enumerate(pairs)}
    wanted = [want for _, want in pairs]
    slots = {want: wanted.count(want) for want in wanted}
    found = matched(books, present, slots)
    assert found.keys() == books.keys()
    assert {each: list(found.values()).count(each) for each in set(found.values())} == slots
    have = list(present.values())
    most_kept = sum(min(have.count(each), slots.get(each, 0)) for each in set(have))
    assert sum(found[name] == present[name] for name in found) == most_kept


def test_the_one_with_fewest_sequences_gives_up_decode():
    books = books_for([Assignment(parse_roles("epd"))] * 3)
    for name, sequences in (("i0", 9), ("i1", 2), ("i2", 5)):
        books[name].load.sequences = sequences
    present = dict.fromkeys(books, Assignment(parse_roles("epd")))
    found = matched(books, present, {Assignment(parse_roles("epd")): 2, Assignment(parse_roles("ep")): 1})
    assert sum(found[name] == present[name] for name in found) == 2
    found = matched(books, present, {Assignment(parse_roles("d")): 2, Assignment(parse_roles("ep")): 1})
    assert found["i1"].roles != parse_roles("epd")
