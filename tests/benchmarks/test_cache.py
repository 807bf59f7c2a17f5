from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.cache import main
from benchmarks.caching.indexing import measure_dict, measure_index
from benchmarks.caching.replay import Ask, Item, most_seconds, replay, total_seconds
from benchmarks.caching.traces import block_seconds, conversations
from core.profile_file import load_profile

PROFILE = "h100-qwen2.5-vl-7b"


def item(number: int, size_bytes: int = 1, seconds: float = 1.0) -> Item:
    return Item(number.to_bytes(32, "big"), size_bytes, seconds)


def asks(*requests: tuple[int, ...], is_chain: bool = False) -> list[Ask]:
    return [Ask(float(at_s), tuple(map(item, numbers)), is_chain) for at_s, numbers in enumerate(requests)]


def write_trace(folder: Path, *hash_ids: list[int]) -> None:
    path = folder / "mooncake" / "conversation_trace.jsonl"
    path.parent.mkdir()
    lines = [
        {"timestamp": 3000 * at, "input_length": 512 * len(ids), "output_length": 5, "hash_ids": ids}
        for at, ids in enumerate(hash_ids)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("policy", ["lru", "seconds-saved"])
def test_hits_of_chains_end_with_the_first_miss_and_of_pictures_do_not(policy: str) -> None:
    requests = ((1, 2), (3, 2), (1, 4))
    assert replay(asks(*requests, is_chain=True), policy, 16, 10).hit_rate == pytest.approx(1 / 6)
    assert replay(asks(*requests), policy, 16, 10).hit_rate == pytest.approx(2 / 6)


def test_no_cache_saves_more_than_the_bound() -> None:
    requests = asks((1,), (2,), (1,), (3,), (2,), (1,))
    assert total_seconds(requests) == 6
    assert most_seconds(requests, 3) == 3
    # Reuses need 2, 3 and 3 of the 6 byte-uses that one byte has.
    assert most_seconds(requests, 1) == pytest.approx(1 + 1 + 1 / 3)
    assert replay(requests, "lru", 16, 1).seconds == 0
    assert most_seconds(asks((1,), (1,)), 0) == 0


def test_the_seconds_of_a_prompts_blocks_add_up_to_its_prefill() -> None:
    profile = load_profile(PROFILE)
    blocks_s = sum(block_seconds(profile, block) for block in range(64))
    assert blocks_s == pytest.approx(profile.prefill_s(64 * 512), rel=0.1)


def test_a_trace_is_read_as_chains_of_blocks(tmp_path: Path) -> None:
    write_trace(tmp_path, [0, 1], [0, 1, 2])
    found = conversations(tmp_path / "mooncake" / "conversation_trace.jsonl", load_profile(PROFILE))
    assert [ask.at_s for ask in found] == [0, 3]
    assert found[0].items == found[1].items[:2]


def test_conversations_from_end_to_end(tmp_path: Path) -> None:
    write_trace(tmp_path, [0, 1], [0, 1, 2], [0, 3])
    main(["mooncake", "--data", str(tmp_path), "--blocks", "10", "--json", str(tmp_path / "found.json")])
    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert row["hit_rate"] == {"lru": pytest.approx(3 / 7), "seconds-saved": pytest.approx(3 / 7)}
    assert row["saved_s"]["lru"] == pytest.approx(row["most_s"])
    assert row["ratio"] == 1


def test_pictures_from_end_to_end(tmp_path: Path) -> None:
    folder = tmp_path / "servegen" / "multimodal" / "mm-image"
    folder.mkdir(parents=True)
    (folder / "chunk-0-trace.csv").write_text("0,0.5,1.0,Gamma,1.0,2.0\n")
    lengths = {"text_tokens": "{5: 1.0}", "image_count": "{2: 1.0}"}
    lengths |= {"image_tokens": "{100: 0.5, 900: 0.5}", "output_tokens": "{9: 1.0}"}
    (folder / "chunk-0-dataset.json").write_text(json.dumps({"0": lengths}))
    options = ["--start-s", "0", "--duration-s", "600", "--mebibytes", "1000", "--repeat-share", "0.6"]
    main(["pictures", "--data", str(tmp_path), *options, "--json", str(tmp_path / "found.json")])
    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert 0.5 < row["hit_rate"]["lru"] < 0.7
    assert row["saved_s"]["seconds-saved"] == pytest.approx(row["most_s"])


def test_the_index_answers_and_is_swept_while_it_is_measured() -> None:
    figures = measure_index(num_keys=4000, num_instances=4)
    assert figures.num_keys == 4000 - 1000 + 128  # of the instance that is gone only what others have, too
    assert 40 < figures.bytes_per_key < 60
    assert figures.tidy_steps >= 1
    assert measure_dict(4000, 4).num_keys == 4000


def test_a_chain_is_timed(tmp_path: Path) -> None:
    main(["chain", "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert all(found[name] > 0 for name in ("text_ms", "media_ms", "blake2b_links_ms", "sha256_links_ms"))


def test_what_a_request_costs_before_its_dispatch_is_timed(tmp_path: Path) -> None:
    main(["warmth", "--instances", "3", "5", "--json", str(tmp_path / "found.json")])
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert sorted({row["instances"] for row in rows}) == [3, 5]
    assert all(row["keys_ms"] >= row["turn_ms"] > 0 and row["look_us"] > 0 for row in rows)
