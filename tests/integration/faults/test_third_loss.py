"""A request whose instances are lost three times ends with the cause, and holds nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from elasticmm_client import Unavailable
from tests.checkpoints import build_checkpoint
from tests.integration.faults.failing import failing
from tests.integration.faults.streams import Reference, Streams

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_the_third_loss_ends_a_request(tmp_path: Path) -> None:
    model = build_checkpoint(tmp_path / "first")
    asked = Reference(model, num_questions=2).asked[1:]
    with failing(tmp_path, model, "e-0", "p-0", "d-0", kv_blocks=60, chunk_tokens=48) as cluster:
        cluster.arm("e", "encoding")
        streams = Streams(cluster, asked)
        for role, following in (("e", ("p", "middle chunk")), ("p", ("d", "decoding")), ("d", None)):
            reached = cluster.wait_reached()
            assert reached.instance == f"{role}-0"
            if following is not None:
                cluster.arm(*following)
            os.kill(reached.pid, signal.SIGKILL)
            cluster.wait_gone(reached.instance)
            cluster.add(reached.instance)
        with pytest.raises(Unavailable, match="gave up after 3 attempts.*d-0 was lost"):
            streams.results()
        assert cluster.num_dispatches(streams.names[0]) == 3
        cluster.assert_nothing_is_lost()
