from pathlib import Path

import pytest

pytest.importorskip("xdist")

from tests.workers import TOGETHER, part_of

ROOT = Path(__file__).parents[1]


def test_a_file_is_a_part() -> None:
    part = part_of("tests/core/test_a.py::TestOf::test_one[a::b]")
    assert part == part_of("tests/core/test_a.py::test_two") == "tests/core/test_a.py"


@pytest.mark.parametrize("place", TOGETHER)
def test_what_shares_something_is_together(place: str) -> None:
    assert (ROOT / place).exists()
    name = f"{place}test_a.py" if place.endswith("/") else place
    assert part_of(f"{name}::test_one") == TOGETHER[place]
