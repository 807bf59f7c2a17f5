import pytest

from core.stages import roles_name
from core.topology import parse_topology


def names(topology: str, num_instances: int | None = None) -> list[str]:
    return [roles_name(roles) for roles in parse_topology(topology, num_instances).instances]


@pytest.mark.parametrize(
    ("name", "num_instances", "expected"),
    [
        ("auto", None, ["epd"]),
        ("auto", 2, ["epd", "epd"]),
        ("auto", 3, ["e", "p", "d"]),
        ("auto", 5, ["e", "p", "d", "d", "d"]),
        ("coupled", None, ["epd"]),
        ("coupled", 2, ["epd", "epd"]),
        ("epd2", None, ["epd", "epd"]),
        ("e1p1d1", 3, ["e", "p", "d"]),
        ("E1P2D2", None, ["e", "p", "p", "d", "d"]),
        ("ep1d1", None, ["ep", "d"]),
        ("pe1d1", None, ["ep", "d"]),
        ("e1pd2", None, ["e", "pd", "pd"]),
    ],
)
def test_expands_to_role_sets(name: str, num_instances: int | None, expected: list[str]) -> None:
    assert names(name, num_instances) == expected


@pytest.mark.parametrize(
    ("name", "num_instances", "message"),
    [
        ("", None, "topology: '' is none of"),
        ("x1p1d1", None, "topology: 'x' in 'x1p1d1' is no role set"),
        ("ee1p1d1", None, "topology: 'ee'"),
        ("e1p1", None, "nobody in 'e1p1' plays 'd'"),
        ("e0p1d1", None, "e0 in 'e0p1d1' is not between"),
        ("e1p1d9999999999", None, "is not between"),
        ("e1p1d", None, "topology: 'e1p1d' is none of"),
        ("1e1p", None, "topology: '1e1p' is none of"),
        ("e1p1d1", 4, "instances: topology 'e1p1d1' has 3, not 4"),
        ("coupled", 0, "instances: 0 is not between"),
    ],
)
def test_refuses_nonsense_naming_the_field(name: str, num_instances: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_topology(name, num_instances)


def test_counts_what_is_missing() -> None:
    topology = parse_topology("e1p1d2")
    e, _, d, _ = topology.instances
    assert topology.missing([]) == 4
    assert topology.missing([e, d, e]) == 2
