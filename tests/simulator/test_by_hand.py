"""Times of tiny cases, computed by hand, to the microsecond."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.costs import EncodeCosts, MoveCosts
from simulator.workload.request import Request
from tests.simulator.clusters import picture, run, text
from tests.simulator.profiles import ROUND

EPD = [(0.0, {"i0": "e", "i1": "p", "i2": "d"})]

WIDE = replace(ROUND, chunk_tokens=4096, kv_tokens=16384, embedding_tokens=16384)


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=1e-9)


def test_one_text_request_on_one_instance() -> None:
    (record,) = run([text("a")]).records
    assert record.first_token_s == about(0.011)  # 1 ms + 100 tokens of 0.1 ms, as long as the bytes take
    assert record.finished_s == about(0.033)  # two decode steps of 11 ms
    assert record.tpot_s == about(0.011)


def test_the_control_delay_comes_before_the_work() -> None:
    (record,) = run([text("a")], control_s=0.004).records
    assert record.first_token_s == about(0.015)


def test_a_picture_is_decoded_on_the_host_and_encoded_before_its_prefill() -> None:
    (record,) = run([picture("a")], host_time=True).records
    # 10,000 pixels of 1 ns, then 50 ms + 200 tokens of 0.1 ms
    assert record.encoded_s == about(0.07001)
    # chunks of 256 and 44 tokens: 26.6 ms and 11 ms
    assert record.first_token_s == about(0.07001 + 0.0266 + 0.011)


def test_embeddings_and_kv_travel_between_instances() -> None:
    (record,) = run([picture("a")], EPD, instances=3).records
    assert record.encoded_s == about(0.070 + 0.002 + 0.0002)  # setup, and 200 kB
    assert record.first_token_s == about(0.0722 + 0.0266 + 0.011)
    # Of the last 44 kB all but the last layer's share has gone by the end of the step; then the setup.
    tail_s = 44e-6 / 32 + 0.002
    assert record.finished_s == about(0.1098 + tail_s + 2 * 0.011)


def test_kv_that_takes_longer_than_the_prefill_shows() -> None:
    slow = [picture("a", tokens=200, text_tokens=56)]
    (record,) = run(slow, EPD, instances=3, profile=_slow_links()).records
    # 256 tokens of 1 ms each start once the first layer of 32 is done
    assert record.first_token_s == about(0.070 + 0.202 + 0.0266)
    assert record.finished_s == about(0.272 + 0.0266 / 32 + 0.256 + 0.002 + 2 * 0.011)


def test_decodes_run_beside_a_later_prompts_chunks() -> None:
    first, second = run([text("a", outputs=10), text("b", 0.0115, tokens=300)]).records[::-1]
    assert (first.request_id, second.request_id) == ("a", "b")
    # b comes during a's first decode step, that ends at 22 ms; then 255 tokens beside one decode (26.6 ms),
    # then the other 45.
    assert second.first_token_s == about(0.022 + 0.0266 + 0.011)
    # a: steps end at 22, 48.6, 59.6 and then every 11 ms up to its tenth token
    assert first.finished_s == about(0.0596 + 6 * 0.011)


def test_whole_prompts_stop_the_decodes() -> None:
    first, second = run([text("a", outputs=10), text("b", 0.0115, tokens=300)], discipline="whole").records[
        ::-1
    ]
    assert second.first_token_s == about(0.022 + 0.031)  # all 300 tokens in one pass
    assert first.finished_s == about(0.053 + 8 * 0.011)


def test_whole_prompts_are_encoded_in_their_pass() -> None:
    (record,) = run([picture("a")], discipline="whole").records
    assert record.encoded_s == record.first_token_s == about(0.070 + 0.031)


def encoded(*requests: Request, **config: Any) -> dict[str, float | None]:
    return {each.request_id: each.encoded_s for each in run(requests, **config).records}


def test_by_arrival_pictures_that_wait_together_are_encoded_in_batches() -> None:
    """While "a" is encoded the others come; two of 2000 tokens are a batch, for three would pass 4096."""
    later = [picture(name, 0.01, tokens=2000, text_tokens=10) for name in "bcd"]
    found = encoded(picture("a"), *later, instances=1, profile=WIDE, discipline="chunked")
    assert found["a"] == about(0.070)
    assert found["b"] == found["c"] == about(0.070 + 2 * 0.250)
    # the step between two batches is a's prefill
    assert found["d"] == about(0.570 + 0.031 + 0.250)


def test_a_large_picture_lets_steps_and_small_pictures_pass() -> None:
    """b takes 250 ms in 17 slices; a's first step waits for one of them."""
    asked = [picture("a"), picture("b", 0.01, tokens=2000, text_tokens=10)]
    (record, _) = run(asked, instances=1, profile=WIDE).records
    assert record.request_id == "a"
    assert record.first_token_s == about(0.070 + 0.250 / 17 + 0.031)
    assert record.finished_s == about(0.070 + 6 * 0.250 / 17 + 0.031 + 2 * 0.011)
    assert encoded(*asked, instances=1, profile=WIDE)["b"] == about(0.070 + 0.250 + 0.031 + 2 * 0.011)


def test_steps_are_as_rare_as_the_target_per_token_allows() -> None:
    """As above, but 120 ms from step to step, or four steps: b has seven slices and three beside a's."""
    asked = [picture("a"), picture("b", 0.01, tokens=2000, text_tokens=10)]
    (record, _) = run(asked, instances=1, profile=WIDE, tpot_s=0.2).records
    assert record.request_id == "a"
    assert record.finished_s == about(0.070 + 11 * 0.250 / 17 + 0.031 + 2 * 0.011)


def test_a_small_picture_passes_a_large_one_on_its_encoder() -> None:
    """a's 200 ms are 14 slices, of which the eighth runs when b of 10 ms comes."""
    asked = [picture("a", tokens=2000), picture("b", 0.11, tokens=100)]
    profile = replace(WIDE, encode=EncodeCosts(fixed_s=0.0, per_token_s=1e-4))
    found = encoded(*asked, plans=EPD, instances=3, profile=profile)
    assert found["b"] == about(8 * 0.200 / 14 + 0.010 + 0.002 + 0.0001)
    assert found["a"] == about(0.200 + 0.010 + 0.002 + 0.002)


def first_tokens(*requests: Request, **config: Any) -> dict[str, float | None]:
    return {each.request_id: each.first_token_s for each in run(requests, **config).records}


def test_text_passes_pictures_in_a_step_and_pictures_keep_half() -> None:
    """The picture's first 256 of 600 tokens run from 100 ms on, when texts come."""
    asked = [picture("a", tokens=500, outputs=1), text("b", 0.101, outputs=1)]
    found = first_tokens(*asked)
    assert found["b"] == about(0.1266 + 0.0266)  # beside 156 of the picture's
    assert found["a"] == about(0.1532 + 0.0198)
    arrival = first_tokens(*asked, discipline="chunked")
    assert arrival["a"] == arrival["b"] == about(0.1266 + 0.0266 + 0.0198)
    long = first_tokens(asked[0], text("b", 0.101, tokens=800, outputs=1))
    assert long["a"] == about(0.1266 + 3 * 0.0266)  # 128, 128 and 88 tokens
    assert long["b"] == about(0.2064 + 0.0266 + 0.013)  # 128, 128, 168, 256 and 120


def test_a_prompt_goes_on_with_its_embedding_in_the_next_step() -> None:
    """p comes during the fifth step of a; no step of a alone is between its encoding and its chunks."""
    asked = [text("a", outputs=40), picture("p", 0.05, outputs=1)]
    result = run(asked, instances=1, discipline="chunked")
    found = {record.request_id: record.first_token_s for record in result.records}
    assert found["p"] == about(0.055 + 0.070 + 0.0266 + 0.011)


def test_encoding_is_put_off_for_text_once() -> None:
    """The picture and b come while a runs, c while b does."""
    asked = [text("a", tokens=200, outputs=1), picture("p", 0.001, outputs=1)]
    asked += [text("b", 0.002, outputs=1), text("c", 0.022, outputs=1)]
    found = first_tokens(*asked)
    assert found["b"] == about(0.021 + 0.011)
    assert found["c"] == about(0.032 + 2 * 0.014 + 0.011)  # two of the picture's five slices
    assert found["p"] == about(0.113 + 0.0266 + 0.011)
    assert first_tokens(*asked, discipline="chunked")["b"] == about(0.021 + 0.070 + 0.021)


def test_a_known_picture_costs_no_encoding() -> None:
    twice = [picture("a", digest=7), picture("b", 1.0, digest=7)]
    result = run(twice, encoder_cache=True)
    assert result.caches.encoder_hits == 1
    assert result.records[1].ttft_s == about(0.0376)
    assert run(twice).records[1].ttft_s == about(0.1076)


def test_a_known_prefix_costs_no_prefill() -> None:
    known = {"prefix": (1, 2), "prefix_granule_tokens": 100}
    result = run([text("a", tokens=250, **known), text("b", 1.0, tokens=250, **known)], prefix_cache=True)
    assert result.caches.prefix_hit_tokens == 200
    assert [record.ttft_s for record in result.records] == [about(0.026), about(0.011)]


def _slow_links() -> object:
    return replace(ROUND, kv_move=MoveCosts(2e-3, 1e6), embedding_move=MoveCosts(2e-3, 1e6))
