import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.cores import assign_cores, parse_cores
from core.stages import parse_roles
from core.topology import parse_topology


@pytest.mark.parametrize(
    ("text", "cores"), [("0", (0,)), ("0-3,6", (0, 1, 2, 3, 6)), ("6, 1-2", (1, 2, 6)), ("4-4", (4,))]
)
def test_parses_lists_and_ranges(text: str, cores: tuple[int, ...]) -> None:
    assert parse_cores(text) == cores


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "1,,2", "-1"])
def test_refuses_what_is_no_list_of_cores(text: str) -> None:
    with pytest.raises(ValueError, match="cores: "):
        parse_cores(text)


def test_left_over_cores_go_to_prefill() -> None:
    instances = parse_topology("e1p1d2").instances
    assert assign_cores(range(5), instances) == [(0,), (1, 2), (3,), (4,)]


def test_more_instances_than_cores_share_them() -> None:
    assert assign_cores([0, 1], [parse_roles("e"), parse_roles("p"), parse_roles("d")]) == [(0, 1)] * 3


@given(num_cores=st.integers(1, 40), num_instances=st.integers(1, 20))
def test_sets_are_disjoint_complete_and_even(num_cores: int, num_instances: int) -> None:
    sets = assign_cores(range(num_cores), parse_topology("coupled", num_instances).instances)
    if num_instances <= num_cores:
        assert sorted(core for cores in sets for core in cores) == list(range(num_cores))
        assert max(map(len, sets)) - min(map(len, sets)) <= 1
