"""Loaders on small files in the published formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulator.workload.errors import WorkloadError
from simulator.workload.request import Request
from simulator.workload.trace import TraceSpec, compress, load, mean_rate_rps

SAMPLES = Path(__file__).parent / "samples"


def loaded(format_name: str, path: str, folder: Path = SAMPLES, **more: object) -> list[Request]:
    spec = TraceSpec(format_name, path, **more)  # type: ignore[arg-type]
    spec.check()
    return load(spec, folder, 1)


def test_azure_llm() -> None:
    requests = loaded("azure-llm", "llm.csv")
    assert [round(each.arrival_s, 7) for each in requests] == [0.0, 0.052, 60.1]
    assert [(each.text_tokens, each.output_tokens) for each in requests] == [(4808, 10), (3180, 8), (110, 27)]
    assert loaded("azure-llm", "llm.csv", start_s=0.01, duration_s=1.0)[0].arrival_s == pytest.approx(0.042)
    assert loaded("azure-llm", "llm.csv", max_tokens=9)[0].output_tokens == 9


def test_azure_lmm_takes_the_root_of_the_image_count() -> None:
    requests = loaded("azure-lmm", "lmm.csv")
    assert [len(each.pictures) for each in requests] == [0, 1, 3]
    assert [each.source for each in requests] == ["text", "image", "image"]
    tokens = [each.text_tokens + sum(item.num_tokens or 0 for item in each.pictures) for each in requests]
    assert tokens == [500, 1065, 1000]
    assert all(each.text_tokens >= 1 for each in requests)


def test_azure_minutes_draws_what_the_tables_say() -> None:
    requests = loaded("azure-lmm-minutes", "minutes.csv", quantiles="quantiles.csv", images="images.csv")
    assert [sum(60 * at <= each.arrival_s < 60 * at + 60 for each in requests) for at in range(3)] == [
        132,
        0,
        80,
    ]
    assert {each.source for each in requests[:132]} == {"text", "image"}
    assert all(100 <= each.text_tokens <= 1000 for each in requests if each.source == "text")
    assert {len(each.pictures) for each in requests} <= {0, 1, 2, 4}


def test_mooncake_keeps_hashes_of_full_blocks() -> None:
    requests = loaded("mooncake", "mooncake.jsonl")
    assert [each.arrival_s for each in requests] == [0.0, 0.0, 3.0]
    assert requests[0].prefix == (0, 1)  # 1100 tokens are two full blocks of 512
    assert requests[2].prefix == (0, 1, 5)


def test_servegen_clients() -> None:
    requests = loaded("servegen", "servegen", duration_s=1800.0)
    first = [each for each in requests if each.arrival_s < 600]
    assert 350 < len(first) < 650  # 0.805 requests/s for 600 s
    assert not [each for each in requests if 600 <= each.arrival_s < 1200]  # no traffic in that window
    assert {each.output_tokens for each in requests} == {20, 40}
    assert {sum(item.num_tokens or 0 for item in each.pictures) for each in requests} == {500, 1000, 2000}
    assert requests == loaded("servegen", "servegen", duration_s=1800.0)
    later = loaded("servegen", "servegen", start_s=1200.0, duration_s=600.0, clients=(0,))
    assert [each.text_tokens for each in later] == [
        each.text_tokens for each in requests if each.arrival_s >= 1200
    ]


def test_compression_changes_nothing_but_time() -> None:
    requests = loaded("azure-llm", "llm.csv")
    fast = compress(requests, 10.0)
    assert mean_rate_rps(fast) == pytest.approx(10 * mean_rate_rps(requests))
    assert [each.text_tokens for each in fast] == [each.text_tokens for each in requests]


def conversation(folder: Path, *turns: tuple[int, int, list[int]]) -> list[tuple[int, ...]]:
    """What answers are taken to have made."""
    lines = [
        {"timestamp": at, "input_length": prompt, "output_length": output, "hash_ids": hashes}
        for at, (prompt, output, hashes) in enumerate(turns)
    ]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return [each.made for each in loaded("mooncake", "m.jsonl", folder)]


def test_mooncakes_answers_fill_blocks_of_the_next_turn(tmp_path: Path) -> None:
    first, second = (1100, 600, [0, 1, 2]), (2100, 10, [0, 1, 5, 6, 7])
    assert conversation(tmp_path, first, second) == [(5,), ()]


@pytest.mark.parametrize(
    "other",
    [
        (1600, 10, [0, 1, 5, 6]),  # too short to have the answer in it
        (2100, 10, [0, 8, 5, 6, 7]),  # begins otherwise
    ],
)
def test_other_prompts_do_not_go_on_with_an_answer(tmp_path: Path, other: tuple[int, int, list[int]]) -> None:
    assert conversation(tmp_path, (1100, 600, [0, 1, 2]), other) == [(), ()]


def test_all_share_mooncakes_first_block(tmp_path: Path) -> None:
    assert conversation(tmp_path, (600, 600, [0, 1]), (2100, 10, [0, 2, 3, 4, 5])) == [(), ()]


LLM = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
ROW = "2023-11-16 18:17:03.9799600,4808,10\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "t.csv:1: the header should be TIMESTAMP,ContextTokens,GeneratedTokens"),
        (LLM, "t.csv: holds no request in that stretch"),
        ("A,B\n1,2\n", "t.csv:1: the header should be"),
        (LLM + ROW + "2023-11-16 18:17:02.9,1,1\n", "t.csv:3: the time is before the line above"),
        (LLM + "yesterday,1,1\n", "t.csv:2: TIMESTAMP should be a time such as"),
        (LLM + "2023-13-16 18:17:03,1,1\n", "t.csv:2: TIMESTAMP is no time of a calendar"),
        (LLM + "2023-11-16 18:17:03,-4,1\n", "t.csv:2: ContextTokens should be at least 1, is -4"),
        (LLM + "2023-11-16 18:17:03,4.5,1\n", "t.csv:2: ContextTokens should be a whole number, is '4.5'"),
        (LLM + "2023-11-16 18:17:03,4\n", "t.csv:2: should have 3 columns, has 2"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(WorkloadError, match=message):
        loaded("azure-llm", "t.csv", tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "m.jsonl:1: is no JSON"),
        ("[]", "m.jsonl:1: should be an object"),
        ('{"timestamp": 0}', "m.jsonl:1: lacks hash_ids, input_length, output_length"),
        (
            '{"timestamp": 0, "input_length": "7", "output_length": 1, "hash_ids": []}',
            "m.jsonl:1: input_length should be a whole number from 1, is '7'",
        ),
        (
            '{"timestamp": 0, "input_length": 7, "output_length": 1, "hash_ids": ["a"]}',
            "m.jsonl:1: hash_ids should be a list of whole numbers",
        ),
    ],
)
def test_what_is_wrong_in_a_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "m.jsonl").write_text(line + "\n")
    with pytest.raises(WorkloadError, match=message):
        loaded("mooncake", "m.jsonl", tmp_path)


@pytest.mark.parametrize(
    ("trace", "dataset", "message"),
    [
        ("", "{}", "dataset.json: is empty"),
        ("0,1,1,Gamma,1,1\n", '{"0": {}}', "dataset.json: 0: lacks text_tokens, image_count"),
        ("0,1,1,Pareto,1,1\n", None, "trace.csv:1: the pattern should be Gamma or Weibull, is 'Pareto'"),
        ("0,-1,1,Gamma,1,1\n", None, "trace.csv:1: rate should be a finite number from zero"),
        ("0,1,1,Gamma\n", None, "trace.csv:1: should have 6 columns, has 4"),
        ("600,1,1,Gamma,1,1\n0,1,1,Gamma,1,1\n", None, "trace.csv:2: the time is not after the line above"),
        ("", None, "trace.csv: is empty"),
    ],
)
def test_what_is_wrong_with_a_client_is_named(
    tmp_path: Path, trace: str, dataset: str | None, message: str
) -> None:
    fine = (SAMPLES / "servegen" / "chunk-0-dataset.json").read_text()
    (tmp_path / "chunk-0-trace.csv").write_text(trace)
    (tmp_path / "chunk-0-dataset.json").write_text(fine if dataset is None else dataset)
    with pytest.raises(WorkloadError, match=message):
        loaded("servegen", ".", tmp_path, duration_s=600.0)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"none.csv: cannot be read \(No such file"):
        loaded("azure-llm", "none.csv", tmp_path)
    with pytest.raises(WorkloadError, match="holds no chunk-N-trace.csv"):
        loaded("servegen", ".", tmp_path, duration_s=600.0)


def test_options_of_other_formats_are_refused() -> None:
    with pytest.raises(WorkloadError, match="clients: is not for format mooncake"):
        loaded("mooncake", "mooncake.jsonl", clients=(1,))
    with pytest.raises(WorkloadError, match="quantiles: is needed for format azure-lmm-minutes"):
        loaded("azure-lmm-minutes", "minutes.csv")
    with pytest.raises(WorkloadError, match="duration_s: is needed for servegen"):
        loaded("servegen", "servegen")


def test_samples_are_small() -> None:
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) < 10_000
    assert json.loads((SAMPLES / "mooncake.jsonl").read_text().splitlines()[0])["timestamp"] == 0
