"""The load generator, against a cluster that echoes."""

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from benchmarks import serve
from benchmarks.load.driver import DriveSpec, drive
from benchmarks.load.report import build_report, build_table, medians
from benchmarks.load.setups import Setup, parse_setup
from cli.load.outcomes import Outcome, Targets, quantiles, summarize
from cli.load.pictures import make_picture, parse_size
from cli.load.texts import TextMaker
from cli.load.workload import WorkloadSpec, plan_requests
from tests.clients.fake_answers import refuse
from tests.clients.fake_cluster import FakeCluster


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder whose tokenizer counts words."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


@pytest.fixture
def texts(model: Path) -> TextMaker:
    return TextMaker(model)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    fake = FakeCluster()
    yield fake
    fake.stop()


def outcome(index: int = 0, **values: object) -> Outcome:
    given = {"kind": "text", "start_s": 0.0, "end_s": 2.0, "ttft_s": 0.5, "tpot_s": 0.02, "output_tokens": 10}
    return Outcome(index, **(given | values))  # type: ignore[arg-type]


@pytest.mark.parametrize("num_tokens", [1, 7, 512])
def test_texts_have_as_many_tokens_as_wanted(texts: TextMaker, num_tokens: int) -> None:
    assert texts.count(texts.make(num_tokens, random.Random(0))) == num_tokens


def test_pictures_have_the_wanted_size_and_differ() -> None:
    rng = random.Random(0)
    first, second = make_picture(90, 40, rng), make_picture(90, 40, rng)
    assert first != second
    assert Image.open(io.BytesIO(first)).size == (90, 40)


@pytest.mark.parametrize("text", ["448", "448x", "0x4", "axb", ""])
def test_a_wrong_size_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="picture-size"):
        parse_size(text)


def test_plans_are_those_of_the_seed(texts: TextMaker) -> None:
    spec = WorkloadSpec(num_requests=10, input_tokens=5, image_share=0.3, image_size=(8, 8), rate=4.0)
    plan = plan_requests(spec, texts, seed=1)
    assert plan == plan_requests(spec, texts, seed=1)
    assert plan != plan_requests(spec, texts, seed=2)
    assert sum(request.kind == "image" for request in plan) == 3
    arrivals = [request.at_s for request in plan]
    assert arrivals == sorted(arrivals)
    assert arrivals[0] == 0.0


def test_arrivals_have_the_wanted_rate(texts: TextMaker) -> None:
    plan = plan_requests(WorkloadSpec(num_requests=3000, input_tokens=1, rate=5.0), texts, seed=0)
    assert 3000 / plan[-1].at_s == pytest.approx(5.0, rel=0.1)


@pytest.mark.parametrize(
    "values",
    [{"num_requests": 0}, {"image_share": 1.5}, {"rate": 0.0}, {"output_tokens": 0}, {"concurrency": 0}],
)
def test_wrong_options_are_named(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        WorkloadSpec(**{"num_requests": 1, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [None, 200.0])
@pytest.mark.parametrize("num_processes", [1, 2])
def test_drives_every_request(
    cluster: FakeCluster, texts: TextMaker, rate: float | None, num_processes: int
) -> None:
    spec = WorkloadSpec(
        num_requests=6, input_tokens=3, output_tokens=4, image_share=0.5, image_size=(8, 8), rate=rate
    )
    seen: list[Outcome] = []
    outcomes = drive(
        DriveSpec(cluster.address, concurrency=2, num_processes=num_processes),
        plan_requests(spec, texts, seed=0),
        seen.append,
    )
    assert outcomes == seen
    assert sorted(each.index for each in outcomes) == list(range(6))
    assert {each.output_tokens for each in outcomes} == {4}
    assert all(each.is_ok and each.end_s >= each.start_s and each.ttft_s > 0 for each in outcomes)
    assert len(cluster.uploads) == 3
    assert all(request.stop.ignore_eos for request in cluster.requests)


def test_failures_are_outcomes(cluster: FakeCluster, texts: TextMaker) -> None:
    cluster.answer = lambda _, context: iter([refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "full")])  # type: ignore[list-item]
    spec = WorkloadSpec(num_requests=2, input_tokens=3)
    outcomes = drive(DriveSpec(cluster.address, 1), plan_requests(spec, texts, seed=0), lambda _: None)
    assert [each.error for each in outcomes] == ["RESOURCE_EXHAUSTED: full"] * 2
    assert summarize(outcomes, Targets())["errors"] == ["RESOURCE_EXHAUSTED: full"]


def test_figures_of_a_run() -> None:
    outcomes = [
        outcome(0),
        outcome(1, kind="image", ttft_s=1.5, end_s=4.0),
        outcome(2, error="X: y", ttft_s=None),
    ]
    summary = summarize(outcomes, Targets(ttft_ms=1000))
    assert summary["duration_s"] == 4.0
    assert (summary["requests"], summary["failed"], summary["output_tokens_per_s"]) == (3, 1, 5.0)
    assert (summary["goodput_per_s"], summary["good_share"]) == (0.25, pytest.approx(1 / 3))
    assert summary["image"]["ttft_ms"] == {"mean": 1500.0, "p50": 1500.0, "p90": 1500.0, "p99": 1500.0}


def test_quantiles_are_nearest_ranks() -> None:
    assert quantiles(range(1, 101)) == {"mean": 50.5, "p50": 50, "p90": 90, "p99": 99}
    assert quantiles([3.0]) == {"mean": 3.0, "p50": 3.0, "p90": 3.0, "p99": 3.0}
    assert quantiles([]) == {}


def test_a_token_target_is_met_by_answers_of_one_token() -> None:
    assert Targets(tpot_ms=1).met_by(outcome(tpot_s=None))
    assert not Targets(tpot_ms=1).met_by(outcome())


def test_reports_medians_and_ratios_round_by_round() -> None:
    slow = [{"a": {"p50": value}} for value in (10.0, 40.0, 20.0)]
    fast = [{"a": {"p50": value}} for value in (5.0, 10.0, 20.0)]
    report = build_report({"slow": slow, "fast": fast}, command="x")
    assert medians(slow) == {"a.p50": 20.0}
    assert report["ratios"] == {"fast / slow": {"a.p50": 0.5}}
    assert [column.header for column in build_table(report).columns][1:] == ["slow", "fast", "fast / slow"]


def test_parses_setups() -> None:
    settings = (("transport", "grpc"), ("num_instances", 2))
    text = "coupled transport=grpc instances=2"
    assert parse_setup(text) == Setup(text, "coupled", settings)
    with pytest.raises(ValueError, match="setup: 'colour=red'"):
        parse_setup("coupled colour=red")


def test_the_whole_command(
    cluster: FakeCluster,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--address", cluster.address, "--model", model, "--requests", 3, "--warmup", 1, "--rounds", 2]
    words += [
        "--input-tokens",
        4,
        "--output-tokens",
        5,
        "--ttft-target-ms",
        60_000,
        "--json",
        tmp_path / "r.json",
    ]
    monkeypatch.setattr("sys.argv", ["serve", *map(str, words)])
    assert serve.main() == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert [each["requests"] for each in report["setups"]["cluster"]["rounds"]] == [3, 3]
    assert report["setups"]["cluster"]["median"]["good_share"] == 1.0
    assert "TTFT p50 ms" in capsys.readouterr().out
    assert len(cluster.requests) == 7
