from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.forms import PD, Pool, assignments_of, candidates, forms_name, layout_name
from coordinator.policy.layouts import TEXT_SHARES, split_forms, static_layout
from coordinator.policy.plan import Assignment, check_assignments
from coordinator.policy.standings import forms_of
from core.stages import COUPLED, ModalityGroup, Stage

parts = st.tuples(*[st.floats(0, 1)] * 3)


@given(st.integers(1, 2000), parts, st.booleans())
def test_candidates_are_whole_and_few(count, work, is_text):
    found = candidates(count, work, is_text)
    assert 1 <= len(found) <= 20
    for form in found:
        assert sum(pool.size for pool in form) == count
        played = [stage for pool in form for stage in pool.roles]
        assert len(played) == len(set(played))
        assert {Stage.PREFILL, Stage.DECODE} <= set(played)
        assert is_text or set(played) == set(Stage)


def test_one_instance_can_only_be_coupled():
    assert [form[0].roles for form in candidates(1, (1.0, 1.0, 1.0), False)] == [COUPLED]


@given(st.integers(3, 200), st.sampled_from(sorted(TEXT_SHARES)))
def test_static_layouts_serve_both_groups_and_use_all(count, split):
    names = [f"i{number}" for number in range(count)]
    wanted = static_layout(split)(names)
    assert list(wanted) == names
    check_assignments(wanted.values())
    text = sum(each.group is ModalityGroup.TEXT for each in wanted.values())
    assert abs(text - TEXT_SHARES[split] * count) <= 1


def test_the_documented_table_of_eight():
    layouts = {split: static_layout(split)([f"i{n}" for n in range(8)]) for split in TEXT_SHARES}
    assert {split: forms_name(forms_of(wanted)) for split, wanted in layouts.items()} == {
        "text-first": "multimodal 1EP 1D | text 3P 3D",
        "equal": "multimodal 1E 2P 1D | text 2P 2D",
        "multimodal-first": "multimodal 2E 2P 2D | text 1P 1D",
    }


@given(st.integers(1, 40), st.integers(1, 40))
def test_forms_of_a_plan_are_those_it_was_made_of(num_text, num_multimodal):
    forms = split_forms(num_text, num_multimodal)
    plan = [each for each, size in assignments_of(forms).items() for _ in range(size)]
    again = forms_of({f"i{number}": each for number, each in enumerate(plan)})
    assert assignments_of(again) == assignments_of(forms)


def test_a_layout_is_named_by_counts_whoever_plays_what():
    one, other = Assignment(PD, ModalityGroup.TEXT), Assignment(COUPLED)
    counts = Counter([other, one, other])
    assert layout_name(counts) == layout_name(Counter([one, other, other])) == "1xtext:pd 2xshared:epd"
    forms = {ModalityGroup.SHARED: (Pool(COUPLED, 2),), ModalityGroup.TEXT: (Pool(PD, 1),)}
    assert layout_name(assignments_of(forms)) == layout_name(counts)
