import pytest

from coordinator.errors import OverloadedError
from coordinator.policy.scheduler import Slo
from coordinator.slo.books import SloBooks
from coordinator.slo.report import PriorityClass
from coordinator.slo.verdict import Verdict
from coordinator.tenants.labels import TenantLabels
from core.clock import ManualClock
from core.stages import ModalityGroup
from tests.coordinator.ends import make_call, make_end
from tests.coordinator.instances import make_instance


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def books(clock: ManualClock) -> SloBooks:
    return SloBooks(Slo(0.5, 0.1), TenantLabels(lambda: ()), clock, price_per_hour=2.0)


def test_classes_are_kept_apart_and_in_order(books: SloBooks) -> None:
    books.on_end(make_end(tenant="b", priority=7))
    books.on_end(make_end(tenant="a", group=ModalityGroup.MULTIMODAL, first_token_s=0.8))
    books.on_unserved(make_call(OverloadedError("full", 1.0), tenant="a", priority=-1))
    classes = books.report().windows[0].classes
    assert [(each.calls.tenant, each.calls.group.value, each.calls.priority) for each in classes] == [
        ("a", "multimodal", PriorityClass.NORMAL),
        ("a", "text", PriorityClass.LOW),
        ("b", "text", PriorityClass.HIGH),
    ]
    assert [each.attainment for each in classes] == [0, 0, 1]
    assert classes[0].verdicts[Verdict.LATE] == classes[1].verdicts[Verdict.UNSERVED] == 1


def test_windows_forget(books: SloBooks, clock: ManualClock) -> None:
    books.on_end(make_end())
    clock.advance(70)
    assert [window.num_finished for window in books.report().windows] == [0, 1, 1]
    assert [window.covered_s for window in books.report().windows] == [60, 70, 70]
    clock.advance(3600)
    books.on_end(make_end())
    assert [window.num_finished for window in books.report().windows] == [1, 1, 1]
    assert len(books._spans) == 1


def test_instances_and_caches_are_sampled(books: SloBooks, clock: ManualClock) -> None:
    clock.advance(2)
    books.sample([make_instance("a"), make_instance("b")])
    clock.advance(1)
    books.sample([make_instance("a")])
    window = books.report().windows[0]
    assert (window.instance_s, window.saved_s, window.saved_bytes) == (5, 0, 0)


def test_tokens_of_the_finished_are_summed(books: SloBooks) -> None:
    books.on_end(make_end())
    books.on_end(make_end())
    window = books.report().windows[-1]
    assert (window.prompt_tokens, window.cached_tokens) == (20, 8)
