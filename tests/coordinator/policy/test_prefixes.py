import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.prefixes import Level, Prefixes, as_prefixes

NAMES = [f"i{number}" for number in range(6)]
held = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 4))


@given(held)
def test_any_mapping_by_levels(tokens):
    found = as_prefixes(tokens)
    assert found == {name: amount for name, amount in tokens.items() if amount}
    assert len(found) == len(list(found))
    assert [level.num_tokens for level in found.levels] == sorted({*tokens.values()} - {0})
    assert bool(found) == any(tokens.values())
    assert as_prefixes(found) is found


@given(held, st.integers(1, 4))
def test_of_a_prompt_that_is_cut(tokens, most):
    found = as_prefixes(tokens)
    assert found.at_most(most) == {name: min(amount, most) for name, amount in found.items()}


def test_names_are_those_of_the_numbers():
    found = Prefixes(NAMES, [Level(32, np.array([5, 1])), Level(16, np.array([2]))])
    assert found.levels[0].num_tokens == 16
    assert found.holders(found.levels[1]) == ["i5", "i1"]
    assert found["i5"] == found.get("i1") == 32
    assert "i0" not in found
