import pytest

from core.cache.shares import Shares


def test_what_is_each_ones_own() -> None:
    shares = Shares(100, {"a": 40})
    for present in (("a",), ("a", "b"), ("b", "c", "d"), ("a", "b", "c")):
        assert shares.all_own_bytes(present) == {each: shares.own_bytes(each, present) for each in present}
    assert shares.all_own_bytes(("a", "b", "c")) == {"a": 40, "b": 30, "c": 30}
    assert shares.all_own_bytes(()) == {}


@pytest.mark.parametrize("named", [{"a": -1}, {"a": 60, "b": 41}])
def test_shares_that_cannot_be(named: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="shares"):
        Shares(100, named)
