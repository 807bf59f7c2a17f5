"""Load from the command line: what is printed, and how it ends."""

import json
from pathlib import Path

import grpc
import httpx
import pytest

from cli.load.http_asker import HttpAsker
from cli.load.workload import PlannedRequest
from elasticmm_client import ElasticMMError, NotRunning
from tests.cli.conftest import RunCli
from tests.clients.fake_answers import refuse
from tests.clients.fake_cluster import FakeCluster

SHORT = ("--requests", 6, "--concurrency", 2, "--prompt-tokens", 5, "--max-tokens", 4)


def test_a_table_of_times_and_counts(run_cli: RunCli, cluster: FakeCluster) -> None:
    result = run_cli("bench", *SHORT, "--slo-ttft-ms", 60000, "--address", cluster.address)
    assert result.exit_code == 0, result.output
    assert "TTFT ms" in result.stdout
    assert "6 answered, 0 failed" in result.stdout
    assert "100% of all (TTFT at most 60000 ms)" in result.stdout
    assert len(cluster.requests) == 6


def test_json_and_pictures(run_cli: RunCli, cluster: FakeCluster) -> None:
    options = ("--pictures", 2, "--picture-size", "8x8", "--rate", 100, "--json")
    words = [*(word for word in SHORT if word not in ("--concurrency", 2)), *options]
    result = run_cli("bench", *words, "--address", cluster.address)
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert (values["requests"], values["failed"], values["cached_tokens"]) == (6, 0, 12)
    kinds = [part.WhichOneof("content") for part in cluster.requests[0].messages[0].parts]
    assert kinds.count("image") == 2


def test_errors_are_counted_by_code(run_cli: RunCli, cluster: FakeCluster) -> None:
    cluster.answer = lambda _, context: iter([refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "full")])  # type: ignore[list-item]
    result = run_cli("bench", *SHORT, "--json", "--address", cluster.address)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["errors_by_code"] == {"RESOURCE_EXHAUSTED": 6}


def test_nobody_there_is_said_at_once(run_cli: RunCli) -> None:
    for door in ("grpc", "http"):
        result = run_cli(
            "bench", *SHORT, "--door", door, "--url", "http://127.0.0.1:1", "--address", "127.0.0.1:1"
        )
        assert result.exit_code == 3, result.output


def test_what_is_there_is_printed_at_ctrl_c(
    run_cli: RunCli, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cli.load import sending

    async def interrupted(asker: object, requests: list[PlannedRequest], *rest: object) -> None:
        await real(asker, requests[:3], *rest)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    real = sending.send_all
    monkeypatch.setattr(sending, "send_all", interrupted)
    result = run_cli("bench", *SHORT, "--json", "--address", cluster.address)
    assert result.exit_code == 130
    assert json.loads(result.stdout)["requests"] == 3


@pytest.mark.parametrize(
    "words",
    [("--rate", 1, "--concurrency", 1), ("--picture-size", "8"), ("--model", "/nowhere"), ("--rate", 0)],
)
def test_wrong_usage(run_cli: RunCli, words: tuple[object, ...]) -> None:
    assert run_cli("bench", *words).exit_code == 2


def request(*images: bytes) -> PlannedRequest:
    return PlannedRequest(0, "text", "hi", images, 2, None)


def http_asker(answer: httpx.Response) -> HttpAsker:
    def handle(asked: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"data": [{"id": "m"}]}) if asked.method == "GET" else answer

    return HttpAsker(httpx.AsyncClient(base_url="http://door", transport=httpx.MockTransport(handle)))


def event(tokens: int, **more: object) -> str:
    cached = {"cached_tokens": 8, "cached_media": 1}
    usage = {"prompt_tokens": 9, "completion_tokens": tokens, "prompt_tokens_details": cached}
    return f"data: {json.dumps({'choices': [], 'usage': usage} | more)}\n\n"


async def test_http_answers_are_counted_by_their_usage() -> None:
    text = event(0) + event(1) + event(3) + event(3) + "data: [DONE]\n\n"
    asker = http_asker(httpx.Response(200, text=text))
    await asker.connect()
    answered = await asker.ask(request(b"picture"))
    assert (answered.output_tokens, answered.prompt_tokens) == (3, 9)
    assert (answered.cached_tokens, answered.cached_media) == (8, 1)
    assert answered.ttft_s is not None
    assert answered.tpot_s is not None


async def test_http_errors_have_their_status_and_those_of_a_stream_their_type() -> None:
    refused = httpx.Response(429, json={"error": {"message": "full"}})
    broken = httpx.Response(200, text='data: {"error": {"message": "gone", "type": "unavailable"}}\n\n')
    for answer, code in ((refused, "HTTP_429"), (broken, "unavailable")):
        with pytest.raises(ElasticMMError) as raised:
            await http_asker(answer).ask(request())
        assert raised.value.code == code


async def test_http_without_a_listener_is_not_running() -> None:
    async with httpx.AsyncClient(base_url="http://127.0.0.1:1") as client:
        with pytest.raises(NotRunning):
            await HttpAsker(client).connect()


def test_texts_need_a_tokenizer(run_cli: RunCli, tmp_path: Path) -> None:
    result = run_cli("bench", "--model", tmp_path)
    assert result.exit_code == 2
    assert "tokenizer.json" in result.stderr
