"""Traces that cannot be used: one line with file and line or key, exit code 2."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.bad_files import BINARY, LATIN, MIX, SCENARIO, Content, problem_of
from tests.cli.conftest import RunCli

SAMPLES = Path(__file__).parents[1] / "simulator" / "workload" / "samples"
TABLES = {"quantiles": "quantiles.csv", "images": "images.csv"}
LLM = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
FIRST, LATER = "2023-11-16 18:17:03,48,10\n", "2023-11-16 18:17:05,48,10\n"
MOONCAKE = '{"timestamp": 5, "input_length": 100, "output_length": 5, "hash_ids": [0]}\n'
TRACES = ("azure-llm", "azure-lmm", "mooncake", "azure-lmm-minutes")


def trace(format_name: str, path: str, **more: Any) -> str:
    keys = {"format": format_name, "path": path, **more}
    table = ", ".join(f"{name} = {json.dumps(value)}" for name, value in keys.items())
    return SCENARIO.replace(MIX, f"workload.trace = {{ {table} }}")


def problem_of_trace(
    run_cli: RunCli, folder: Path, format_name: str, content: Content, name: str = "t"
) -> str:
    """Of a file of that format; what else the format wants is fine."""
    more = TABLES if format_name == "azure-lmm-minutes" else {}
    files: dict[str, Content] = {each: (SAMPLES / each).read_text() for each in more.values()}
    files |= {name: content, "s.toml": trace(format_name, name, **more)}
    return problem_of(run_cli, folder, files)


@pytest.mark.parametrize("format_name", TRACES)
def test_what_is_no_trace_of_any_kind(run_cli: RunCli, tmp_path: Path, format_name: str) -> None:
    for number, (content, problem) in enumerate(
        {
            None: "t: cannot be read (Is a directory)",
            BINARY: "t: is not UTF-8 text",
            LATIN: "t: is not UTF-8 text",
            b"no gzip": "t.gz: is no whole gzip file (Not a gzipped file (b'no'))",
            gzip.compress(b"x" * 10_000)[:-9]: "t.gz: is no whole gzip file (Compressed file ended",
            gzip.compress(b"x" * 10_000)[:12] + b"y" * 99: "t.gz: is no whole gzip file (Error -3",
        }.items()
    ):
        folder = tmp_path / str(number)
        said = problem_of_trace(run_cli, folder, format_name, content, problem.partition(":")[0])
        assert said.startswith(problem)


@pytest.mark.parametrize(
    ("format_name", "content", "problem"),
    [
        ("azure-llm", "", "t:1: the header should be TIMESTAMP,ContextTokens,GeneratedTokens, is ''"),
        ("azure-llm", LLM, "t: holds no request in that stretch"),
        ("azure-llm", "TIMESTAMP,ContextTokens\n" + FIRST, "t:1: the header should be TIMESTAMP,ContextTo"),
        ("azure-llm", LLM + "2023-11-16 18:17:03,48\n", "t:2: should have 3 columns, has 2"),
        ("azure-llm", LLM + FIRST + "\n" + LATER, "t:3: should have 3 columns, has 0"),
        ("azure-llm", LLM + LATER + FIRST, "t:3: the time is before the line above"),
        (
            "azure-llm",
            LLM + FIRST.replace("48", "nan"),
            "t:2: ContextTokens should be a whole number, is 'nan'",
        ),
        ("azure-llm", LLM + FIRST.replace("48", "0"), "t:2: ContextTokens should be at least 1, is 0"),
        (
            "azure-llm",
            LLM + FIRST.replace("48", "9" * 20),
            "t:2: ContextTokens should be at most 100,000,000",
        ),
        ("azure-llm", LLM + "x" * 200_000, "t:2: is no CSV (field larger than field limit"),
        ("mooncake", "", "t: holds no request in that stretch"),
        ("mooncake", MOONCAKE + "\n", "t:2: is no JSON (Expecting value, column 1)"),
        ("mooncake", "[" * 100_000, "t:1: is no JSON that can be taken in (too deep"),
        (
            "mooncake",
            MOONCAKE.replace("100", "9" * 5000),
            "t:1: is no JSON that can be taken in (too deep, or a",
        ),
        ("mooncake", MOONCAKE.replace("100", "9" * 20), "t:1: input_length should be at most 100,000,000"),
        (
            "mooncake",
            MOONCAKE.replace("100", "Infinity"),
            "t:1: input_length should be a whole number from 1",
        ),
        (
            "mooncake",
            MOONCAKE.replace("100", "-1"),
            "t:1: input_length should be a whole number from 1, is -1",
        ),
        ("mooncake", MOONCAKE.replace("input_length", "input"), "t:1: lacks input_length"),
        (
            "mooncake",
            MOONCAKE + MOONCAKE.replace(": 5,", ": 4,", 1),
            "t:2: the time is before the line above",
        ),
    ],
)
def test_what_is_wrong_in_a_trace(
    run_cli: RunCli, tmp_path: Path, format_name: str, content: str, problem: str
) -> None:
    assert problem_of_trace(run_cli, tmp_path, format_name, content).startswith(problem)


def test_a_trace_that_is_not_there(run_cli: RunCli, tmp_path: Path) -> None:
    said = problem_of(run_cli, tmp_path, {"s.toml": trace("azure-llm", "none.csv")})
    assert said == "none.csv: cannot be read (No such file or directory)"


@pytest.mark.parametrize(
    ("name", "old", "new", "problem"),
    [
        ("quantiles.csv", "image,1,", "image,99.5,", ":3: percentile is under that of the row before"),
        ("quantiles.csv", ",1200", ",9200", ":3: value is under that of the row before"),
        ("quantiles.csv", ",99,", ",990,", ":3: percentile should be at most 100, is 990"),
        ("quantiles.csv", "image", "video", ": lacks ContextTokens of image, GeneratedTokens of image"),
        ("quantiles.csv", ",1200", ",inf", ":2: value should be a finite number from zero, is inf"),
        ("images.csv", "65.8", "95.8", ":3: cdf_percent_of_image_requests is under that of the row before"),
        ("images.csv", ",100", ",1000", ":4: cdf_percent_of_image_requests should be at most 100, is 1000"),
        ("minutes.csv", "\n1,", "\n7,", ":3: minute should be 1, is 7"),
        ("minutes.csv", ",58.3", ",-58.3", ":2: text_est should be a finite number from zero, is -58.3"),
    ],
)
def test_what_is_wrong_in_tables_by_the_minute(
    run_cli: RunCli, tmp_path: Path, name: str, old: str, new: str, problem: str
) -> None:
    texts = {each: (SAMPLES / each).read_text() for each in ("minutes.csv", *TABLES.values())}
    assert old in texts[name]
    texts[name] = texts[name].replace(old, new)
    scenario = trace("azure-lmm-minutes", "minutes.csv", **TABLES)
    assert problem_of(run_cli, tmp_path, {**texts, "s.toml": scenario}) == name + problem


def servegen(name: str, content: Content) -> dict[str, Content]:
    """Clients as they should be, but for the first one's file of that name."""
    fine = {f"g/{path.name}": path.read_text() for path in (SAMPLES / "servegen").iterdir()}
    scenario = trace("servegen", "g", duration_s=1800.0)
    return {**fine, f"g/chunk-0-{name}": content, "s.toml": scenario}


def with_lengths(name: str, table: object) -> str:
    datasets = json.loads((SAMPLES / "servegen" / "chunk-0-dataset.json").read_text())
    return json.dumps({key: lengths | {name: table} for key, lengths in datasets.items()})


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("trace.csv", None, ": cannot be read (Is a directory)"),
        ("trace.csv", BINARY, ": is not UTF-8 text"),
        ("trace.csv", "", ": is empty"),
        ("trace.csv", "x" * 200_000, ":1: is no CSV (field larger than field limit"),
        ("trace.csv", "0,nan,1,Gamma,1,1\n", ":1: rate should be a finite number from zero, is nan"),
        ("trace.csv", "0,1,1,Gamma,0,1\n", ":1: shape should be more than zero"),
        ("dataset.json", None, ": cannot be read (Is a directory)"),
        ("dataset.json", BINARY, ": is not UTF-8 text"),
        ("dataset.json", "[5]", ": should be an object by seconds"),
        ("dataset.json", "{}", ": is empty"),
        ("dataset.json", '{"noon": {}}', ": the start of a window should be a whole number, is 'noon'"),
        ("dataset.json", "[" * 100_000, ": is no JSON that can be taken in (too deep"),
        ("dataset.json", with_lengths("text_tokens", 5), ": 0.text_tokens: should be a table of numbers"),
        ("dataset.json", with_lengths("text_tokens", "{}"), ": 0.text_tokens: has no probabilities"),
        ("dataset.json", with_lengths("text_tokens", "{5: 1e999}"), ": 0.text_tokens: has no probabilities"),
        ("dataset.json", with_lengths("text_tokens", "{1e999: 1}"), ": 0.text_tokens: should be a table"),
        (
            "dataset.json",
            with_lengths("text_tokens", "-" * 100_000 + "1"),
            ": 0.text_tokens: should be a tab",
        ),
        (
            "dataset.json",
            with_lengths("image_tokens", "{-5: 1}"),
            ": 0.image_tokens: values should be from 0",
        ),
        (
            "dataset.json",
            with_lengths("image_count", "{9999: 1}"),
            ": 0.image_count: values should be from 0",
        ),
    ],
)
def test_what_is_wrong_with_a_client(
    run_cli: RunCli, tmp_path: Path, name: str, content: Content, problem: str
) -> None:
    said = problem_of(run_cli, tmp_path, servegen(name, content))
    assert said.startswith(f"g/chunk-0-{name}{problem}")
