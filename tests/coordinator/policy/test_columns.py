import numpy as np
import pytest

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.columns import Columns
from coordinator.policy.cost_model import CostModel
from coordinator.policy.costing import Costing
from coordinator.policy.forms import PD, D, P
from coordinator.policy.view import Placement
from core.costs import chunk_shape
from core.stages import COUPLED, ModalityGroup
from tests.coordinator.policy.cluster import PROFILE, text

NUMBERS = (
    "free_kv_tokens",
    "text_tokens",
    "media_tokens",
    "encode_s",
    "backlog_s",
    "stretch",
    "decode_step_s",
)


@pytest.fixture
def books():
    made = Books()
    for name, roles in (("a", COUPLED), ("b", PD), ("c", D)):
        made.add_instance(InstanceBook(name, roles, ModalityGroup.SHARED, PROFILE.block_tokens, 1000))
    return made


def run(books, name, *, is_prefilled):
    work = text(name)
    books.queue(work)
    work.placement = Placement(name, (), "a", "a", 0.0)
    work.is_prefilled = work.is_handed_over = is_prefilled
    books.note(work)
    return work


def assert_fresh(columns, books, costing):
    """As if every row were filled for the first time."""
    columns.refresh(books)
    anew = Columns(costing)
    anew.refresh(books)
    for name in NUMBERS:
        assert np.array_equal(getattr(columns, name), getattr(anew, name)), name


def test_players_play_all_the_stages_asked_for(books):
    columns = Columns(Costing(CostModel(PROFILE)))
    columns.refresh(books)
    found = [list(columns.players(roles, ModalityGroup.TEXT)) for roles in (COUPLED, PD, P, D)]
    assert found == [[0], [0, 1], [0, 1], [0, 1, 2]]


def test_rows_follow_loads(books):
    costing = Costing(CostModel(PROFILE))
    columns = Columns(costing)
    columns.refresh(books)
    work = run(books, "one", is_prefilled=False)
    assert_fresh(columns, books, costing)
    work.is_prefilled = work.is_handed_over = True
    books.note(work)
    assert_fresh(columns, books, costing)
    assert columns.stretch[0] > 1
    books.end(work)
    assert_fresh(columns, books, costing)


def test_a_row_is_filled_with_corrected_costs(books):
    model = CostModel(PROFILE)
    costing = Costing(model)
    columns = Columns(costing)
    work = run(books, "one", is_prefilled=True)
    columns.refresh(books)
    before = columns.decode_step_s[0]
    model.note_step(chunk_shape(512), 3 * model.step_s(chunk_shape(512)))
    books.note(work)
    columns.refresh(books)
    assert columns.decode_step_s[0] == costing.promised_step_s(books.instances["a"]) != before
