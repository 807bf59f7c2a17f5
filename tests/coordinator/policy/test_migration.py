from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.books import InstanceBook
from coordinator.policy.migration import choose_target, refusal
from coordinator.policy.work import Share
from core.stages import ModalityGroup, Roles, Stage

TEXT, MULTI, SHARED = ModalityGroup.TEXT, ModalityGroup.MULTIMODAL, ModalityGroup.SHARED
D = frozenset({Stage.DECODE})


def book(
    name: str,
    sequences: int = 0,
    total: int = 100,
    promised: int = 0,
    *,
    roles: Roles = D,
    block_tokens: int = 16,
    is_open: bool = True,
    group: ModalityGroup = SHARED,
) -> InstanceBook:
    made = InstanceBook(name, roles, group, block_tokens, total, is_open=is_open)
    made.load.add(Share(kv_blocks=promised, sequences=sequences))
    return made


BOOKS = st.lists(
    st.builds(
        book,
        st.sampled_from("abcdef"),
        st.integers(0, 5),
        st.integers(1, 50),
        st.integers(0, 60),
        roles=st.sampled_from([D, frozenset({Stage.PREFILL}), frozenset(Stage)]),
        block_tokens=st.sampled_from([8, 16]),
        is_open=st.booleans(),
    ),
    unique_by=lambda each: each.instance_id,
)


def test_the_least_loaded_with_room() -> None:
    books = [book("a", 0), book("b", 3), book("c", 1, total=10), book("d", 2), book("e", 2, promised=50)]
    assert choose_target(books, "a", 16 * 40, TEXT) == "d"
    assert choose_target(books, "a", 16 * 10, TEXT) == "c"
    assert choose_target(books, "b", 16, TEXT) == "a"


def test_the_own_group_comes_first() -> None:
    books = [book("a"), book("b", 0, group=MULTI), book("c", 5, group=TEXT)]
    assert choose_target(books, "a", 16, TEXT) == "c"
    assert choose_target(books, "c", 16, MULTI) == "a"
    assert choose_target(books[:2], "a", 16, TEXT) == "b"


def test_nobody_has_room() -> None:
    assert choose_target([book("a"), book("b", promised=100)], "a", 1, TEXT) is None
    assert choose_target([book("a")], "a", 1, TEXT) is None


def test_reasons() -> None:
    assert refusal(book("p", roles=frozenset({Stage.PREFILL})), 1) == "p does not play DECODE"
    assert (
        refusal(book("a", total=4, promised=3), 17)
        == "a has no room: 2 blocks are needed, 1 are not promised"
    )
    assert refusal(book("a", is_open=False), 1) == "a takes nothing new now"
    assert refusal(book("a", total=4, promised=2), 32) == ""


@given(BOOKS, st.integers(1, 400))
def test_the_choice_is_never_refused(books: list[InstanceBook], num_tokens: int) -> None:
    chosen = choose_target(books, "a", num_tokens, TEXT)
    able = [each for each in books if each.instance_id != "a" and not refusal(each, num_tokens)]
    assert (chosen is None) == (not able)
    if chosen is not None:
        best = next(each for each in able if each.instance_id == chosen)
        assert best.load.sequences == min(each.load.sequences for each in able)
        assert Stage.DECODE in best.roles
        assert best.has_kv_room(num_tokens)
