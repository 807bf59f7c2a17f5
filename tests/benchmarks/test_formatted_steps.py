"""What formats cost in whole steps."""

from pathlib import Path

import pytest

from benchmarks.formatted_steps import Case, cases, measure
from core.output_format import FormatKind, OutputFormat
from stage_servers.engine.loader import load_model
from stage_servers.engine.model import Model
from tests.checkpoints import build_checkpoint

FORM = OutputFormat(FormatKind.REGEX, "[ab]{5}")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder: Path = tmp_path_factory.mktemp("model") / "first"
    return load_model(build_checkpoint(folder))


@pytest.mark.parametrize("formatted", [0, 1, 2])
def test_a_batch_stays_as_it_is_although_answers_end(model: Model, formatted: int) -> None:
    found = measure(model, Case("some", 2, formatted, FORM if formatted else None), 40)
    assert bool(found["formatted_per_s"]) == (formatted > 0)
    assert bool(found["plain_per_s"]) == (formatted < 2)
    assert 0 <= found["late_share"] < 1
    assert found["step_ms"]["most"] >= found["step_ms"]["p50"] > 0


def test_every_format_is_measured_beside_plain_answers_and_alone() -> None:
    found = cases(8)
    assert len({case.name for case in found}) == len(found) == 9
    assert {case.formatted for case in found} == {0, 4, 8}
