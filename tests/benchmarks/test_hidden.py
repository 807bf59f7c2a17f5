"""What of a hand-over hides behind its prefill."""

from __future__ import annotations

import pytest

from benchmarks.hidden import run, summarize
from benchmarks.transfer.prefilling import Moments
from stage_servers.engine.loader import load_model
from tests.checkpoints import build_checkpoint


def test_hidden_is_what_the_same_transfer_would_cost_alone() -> None:
    hidden = [Moments(0, 90_000_000, 100_000_000, 102_000_000)] * 3
    alone = [Moments(0, 90_000_000, 95_000_000, 115_000_000)] * 3
    small = [Moments(0, 1_000_000, 2_000_000, 3_000_000)] * 3
    measured = summarize("shm", 1, hidden, alone, small)
    assert (measured.prefill_ms, measured.prefill_alone_ms, measured.from_last_layer_ms) == (100, 95, 12)
    assert (measured.exposed_ms, measured.transfer_ms, measured.one_block_ms) == (2, 20, 1)
    assert measured.hidden_time_share == pytest.approx(0.9)
    assert measured.hidden_traffic_share == pytest.approx(18 / 19)


@pytest.mark.cluster
async def test_both_transports_are_measured(tmp_path_factory: pytest.TempPathFactory) -> None:
    model = load_model(build_checkpoint(tmp_path_factory.mktemp("model") / "first"))
    try:
        results = await run(model, ["shm", "grpc"], 40, 1)
    finally:
        model.close()
    assert [(each.transport, each.num_rounds) for each in results] == [("shm", 1), ("grpc", 1)]
    assert all(each.exposed_ms > 0 and each.transfer_ms > 0 for each in results)
