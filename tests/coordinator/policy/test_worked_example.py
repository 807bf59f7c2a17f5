"""The example of docs/scheduling.md is what the code says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.policy.allocation import prefill_change
from coordinator.policy.change import Change, best_change
from coordinator.policy.cost_model import CostModel
from coordinator.policy.costing import Costing
from coordinator.policy.offers import Terms
from coordinator.policy.plan import Assignment
from coordinator.policy.standing import Standing
from coordinator.policy.view import Placement
from coordinator.policy.work import Work
from core.costs import MoveCosts, StepCosts, StepTerm
from core.stages import ModalityGroup, Stage, parse_roles
from tests.coordinator.policy.cluster import PROFILE, books_of, instance

TEXT = ModalityGroup.TEXT
# 2,000 tokens are prefilled in 0.2 s; 4 sequences of 1,000 tokens take 10 ms a step, 8 take 12 ms; any takes
# 20 ms to move.
ROUND = replace(
    PROFILE,
    step=StepCosts(0.0, StepTerm(base_s=0.008, per_context_token_s=5e-7), StepTerm(per_new_token_s=1e-4)),
    kv_move=MoveCosts(setup_s=0.020, bytes_per_s=1e18),
)


def weighed(num_waiting: int) -> tuple[Standing, Change]:
    books = books_of(*(instance(name, name[0], "text") for name in ("p0", "p1", "d0", "d1")))
    for number in range(8):
        work = Work(f"r{number}", 0.0, 1000, 200, 0.1)
        books.queue(work)
        work.placement = Placement(work.request_id, (), "p0", f"d{number % 2}", 0.0)
        work.is_prefilled = work.is_handed_over = True
        books.note(work)
    for number in range(num_waiting):
        books.queue(Work(f"w{number:02}", 1.0, 2000, 200, ROUND.step.prefill_s(2000, ROUND.chunk_tokens)))
    members = {name: book.roles for name, book in books.instances.items()}
    standing = Standing(TEXT, members, books, Costing(CostModel(ROUND)), output_tokens=200.0)
    (change,) = prefill_change(standing, Assignment(parse_roles("p"), TEXT), Terms(lambda _: True, 1.0, 0.5))
    return standing, change


def told() -> str:
    """The example's text, its line ends as spaces."""
    page = (Path(__file__).parents[3] / "docs" / "scheduling.md").read_text()
    return " ".join(page[page.index("**Example.**") : page.index("## A burst being absorbed")].split())


def test_twelve_that_wait_leave_e_max_where_it_is() -> None:
    standing, change = weighed(12)
    assert sum(standing._finish_s(Stage.PREFILL, [0.0, 0.0])) == pytest.approx(8.4)
    assert sum(standing._finish_s(Stage.PREFILL, [0.0] * 3)) == pytest.approx(6.0)
    assert change.gain == pytest.approx(0.0012)
    assert "Gain = (8.4 - 6.0) / 2,000 = 1.2 ms per token" in told()
    assert standing.step_s(2) == pytest.approx(0.010)
    assert standing.step_s(1) == pytest.approx(0.012)
    assert standing.answer_s(1) - standing.answer_s(2) == pytest.approx(0.2)
    assert change.cost == pytest.approx(0.0084)
    assert "Cost = (4 · 0.02 + 8 · 0.2) / 200 = 8.4 ms per token. Gain < Cost: it stays" in told()
    assert best_change([change]) is None


def test_sixty_make_it_change() -> None:
    standing, change = weighed(60)
    assert sum(standing._finish_s(Stage.PREFILL, [0.0, 0.0])) == pytest.approx(186)
    assert sum(standing._finish_s(Stage.PREFILL, [0.0] * 3)) == pytest.approx(126)
    assert change.gain == pytest.approx(0.030)
    assert "Were 60 requests waiting, the sums would be 186 and 126 s, Gain 30 ms: it changes." in told()
    assert best_change([change]) is change
