from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.balancer import balanced, burst_tolerance
from coordinator.policy.plan import GROUPS
from core.stages import ModalityGroup

TEXT, MEDIA = ModalityGroup.TEXT, ModalityGroup.MULTIMODAL
demands = st.fixed_dictionaries({TEXT: st.floats(0, 50), MEDIA: st.floats(0, 50)})


def least(shares, demand):
    return min(burst_tolerance(shares[group], demand[group]) for group in GROUPS)


@given(st.integers(2, 60), demands)
def test_the_least_burst_tolerance_is_as_large_as_can_be(count, demand):
    shares = balanced(count, demand, dict.fromkeys(GROUPS, 1))
    assert sum(shares.values()) == count
    assert min(shares.values()) >= 1
    best = max(least({TEXT: n, MEDIA: count - n}, demand) for n in range(1, count))
    assert least(shares, demand) >= best * (1 - 1e-9)


@given(st.integers(0, 5), st.integers(0, 5), demands)
def test_floors_are_kept(text_floor, media_floor, demand):
    shares = balanced(10, demand, {TEXT: text_floor, MEDIA: media_floor})
    assert shares[TEXT] >= text_floor
    assert shares[MEDIA] >= media_floor


def test_a_group_without_demand_holds_its_floor():
    assert balanced(8, {TEXT: 3.0, MEDIA: 0.0}, {TEXT: 0, MEDIA: 1}) == {TEXT: 7, MEDIA: 1}


def test_floors_that_need_too_much_are_refused():
    with pytest.raises(ValueError, match="floors: 6 instances for 4"):
        balanced(4, {}, {TEXT: 3, MEDIA: 3})


def test_more_demand_never_gets_less():
    for low, high in product((0.5, 1.0, 4.0), (5.0, 9.0)):
        few = balanced(8, {TEXT: 2.0, MEDIA: low}, {})
        many = balanced(8, {TEXT: 2.0, MEDIA: high}, {})
        assert few[MEDIA] <= many[MEDIA]
