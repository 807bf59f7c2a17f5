"""Tenants with few formats keep them."""

from core.kept_formats import KeptFormats
from core.output_format import FormatKind, OutputFormat


def form(text: str) -> OutputFormat:
    return OutputFormat(FormatKind.REGEX, text)


def kept_of(most: int, *words: str) -> KeptFormats[str]:
    """Each word is a format of the tenant of its first letter."""
    kept: KeptFormats[str] = KeptFormats(most)
    for word in words:
        kept.keep(word[0], form(word), word)
    return kept


def found(kept: KeptFormats[str], *words: str) -> list[str]:
    return [word for word in words if kept.find("other", form(word))]


def test_who_has_most_loses_the_one_used_longest_ago() -> None:
    kept = kept_of(4, "b0", *(f"a{number}" for number in range(20)))
    assert len(kept) == 4
    assert kept.find("b", form("b0")) == "b0"
    assert [kept.find("a", form(f"a{number}")) for number in range(15, 20)] == [
        None,
        None,
        "a17",
        "a18",
        "a19",
    ]


def test_use_counts() -> None:
    kept = kept_of(3, "a0", "a1", "a2")
    assert kept.find("a", form("a0")) == "a0"
    kept.keep("a", form("a3"), "a3")
    assert [kept.find("a", form(f"a{number}")) for number in range(4)] == ["a0", None, "a2", "a3"]


def test_among_tenants_with_as_many_the_one_goes_that_was_here_longest_ago() -> None:
    kept = kept_of(3, "a0", "b0", "c0")
    kept.find("a", form("a0"))
    kept.keep("d", form("d0"), "d0")
    assert found(kept, "b0") == []
    assert found(kept, "a0") == ["a0"]


def test_what_another_tenant_has_is_found_and_is_ones_own_then() -> None:
    kept = kept_of(2, "a0")
    assert kept.find("b", form("a0")) == "a0"
    assert len(kept) == 2
    kept.keep("c", form("c0"), "c0")  # instead of that of a, who was here longest ago
    assert kept.find("b", form("a0")) == "a0"
