"""Pipelined, blocking and inline encoding: times by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.workload.request import Picture, Request
from tests.simulator.clusters import picture, run, run_aware, text
from tests.simulator.profiles import ROUND

TWO_ENCODERS = [(0.0, {"i0": "e", "i1": "e", "i2": "p", "i3": "d"})]


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=1e-9)


def album(tokens: int, number: int) -> Request:
    pictures = tuple(Picture(100, 100, tokens) for _ in range(number))
    return Request("album", 0.0, 50, 3, 3, pictures, "picture")


def first_tokens(*asked: Request, **config: object) -> dict[str, float | None]:
    return {each.request_id: each.first_token_s for each in run(asked, **config).records}


def test_prefill_starts_on_the_first_picture_while_the_second_is_encoded() -> None:
    """Of two pictures of 4096 tokens, a batch each, the first is prefilled beside the second one's encode."""
    wide = replace(ROUND, kv_tokens=16384, embedding_tokens=16384)
    plans = [(0.0, {"i0": "e", "i1": "p", "i2": "d"})]
    found = {
        encoding: first_tokens(album(4096, 2), plans=plans, instances=3, profile=wide, encoding=encoding)[
            "album"
        ]
        for encoding in ("pipelined", "blocking", "inline")
    }
    encode_s, move_s, chunk_s = 0.050 + 0.4096, 0.002 + 0.004096, 0.001 + 0.0256
    last_s = 2 * encode_s + move_s
    # 16 chunks a picture, and 50 tokens of text
    waited_s = about(last_s + 32 * chunk_s + 0.011)
    assert found["inline"] == waited_s
    assert found["blocking"] == waited_s
    assert found["pipelined"] == about(last_s + 16 * chunk_s + 0.011)


def test_items_are_encoded_on_several_instances_at_once_unless_inline() -> None:
    asked = [album(400, 4)]
    spread = run_aware("static:multimodal-first", asked, 8)
    one = run_aware("static:multimodal-first", asked, 8, encoding="inline")
    assert sum(use.num_encodes > 0 for use in spread.usage.values()) > 1
    assert sum(use.num_encodes > 0 for use in one.usage.values()) == 1


def test_inline_encoding_decodes_pictures_between_steps() -> None:
    """10,000 pixels of 1 us and 70 ms of encoding, while a decode stands still."""
    slow = replace(ROUND, encode=replace(ROUND.encode, per_pixel_s=1e-6))
    asked = [text("t", outputs=10), picture("p", 0.0115)]
    ends = {}
    for encoding in ("inline", "pipelined"):
        result = run(asked, profile=slow, encoding=encoding, host_time=True)
        ends[encoding] = {each.request_id: each for each in result.records}
    assert ends["inline"]["p"].encoded_s == about(0.022 + 0.010 + 0.070)
    # Decoded during that step; of five slices of 14 ms each, two go before each other step.
    assert ends["pipelined"]["p"].encoded_s == about(0.022 + 0.070 + 2 * 0.011)
    waited_s = ends["inline"]["t"].finished_s - ends["pipelined"]["t"].finished_s  # type: ignore[operator]
    assert waited_s == about(0.010)


def test_text_waits_in_line_for_the_encoding_of_others_where_it_is_inline() -> None:
    asked = [picture("p", tokens=2000, outputs=1), text("t", 0.001, outputs=1)]
    plans = [(0.0, {"i0": "e", "i1": "pd"})]
    blocked = first_tokens(*asked, plans=plans, instances=2, encoding="inline")
    assert blocked["t"] is not None
    assert blocked["t"] > 0.250
    for encoding in ("pipelined", "blocking"):
        found = first_tokens(*asked, plans=plans, instances=2, encoding=encoding)
        assert found["t"] == about(0.001 + 0.011)


def test_a_picture_is_cut_into_slices_as_long_as_the_cluster_says() -> None:
    """70 ms of encoding beside a decode: no step goes between where a slice is as long as that."""
    asked = [text("t", outputs=10), picture("p", 0.0115)]
    ends = {}
    for slice_s in (0.015, 0.1):
        result = run(asked, encode_slice_s=slice_s)
        ends[slice_s] = {each.request_id: each.encoded_s for each in result.records}["p"]
    assert ends[0.1] == about(0.022 + 0.070)
    assert ends[0.015] == about(0.022 + 0.070 + 2 * 0.011)
