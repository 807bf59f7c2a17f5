"""Answers of a format that move between instances keep to it, and are those of undisturbed ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from elasticmm_client import GenerateResult
from tests.checkpoints import build_checkpoint
from tests.integration.running import Running, cluster

pytestmark = pytest.mark.cluster

# Steps of some milliseconds, so that an answer is not all made before the first move is asked for.
WIDE = {"num_hidden_layers": 6, "intermediate_size": 8192}
REGEX = "([a-h]{20,30}=[0-9]{9};){8}end"
OPTIONS: dict[str, Any] = {"format": {"regex": REGEX}, "max_tokens": 600, "temperature": 1.2, "seed": 9}
MOST_ROUNDS = 5  # on a busy machine an answer may end before it has moved


@pytest.fixture(params=["coupled", "e1p1d2"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    model = build_checkpoint(tmp_path / "first", **WIDE)
    options = ["--dtype", "float32", "--threads", "1", "--kv-blocks", "300"]
    if request.param == "coupled":
        options += ["--instances", "2"]
    with cluster(tmp_path / "state", model, request.param, *options) as up:
        yield up
        up.assert_idle()


def ask_and_move(running: Running, every: int) -> GenerateResult:
    stream = running.client.generate("which?", request_id="moving", **OPTIONS)
    last = 0
    for event in stream:
        index = getattr(event, "first_index", 0)
        if index >= last + every:
            last = index
            if index < 200:
                running.client.migrate("moving")
    return stream.result()


def num_decoders(result: GenerateResult) -> int:
    return sum(span.stage == "decode" for span in result.stages)


def test_moving_changes_nothing(running: Running) -> None:
    undisturbed = running.client.generate("which?", **OPTIONS).result()
    assert num_decoders(undisturbed) == 1
    assert undisturbed.finish_reason == "stop"
    assert re.fullmatch(REGEX, undisturbed.text)
    results = []
    for _ in range(MOST_ROUNDS):
        results.append(ask_and_move(running, every=40))
        if num_decoders(results[-1]) > 2:
            break
    assert num_decoders(results[-1]) > 2
    assert {result.token_ids for result in results} == {undisturbed.token_ids}
