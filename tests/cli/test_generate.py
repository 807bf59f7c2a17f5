import json
from pathlib import Path

import grpc
import pytest

from elasticmm.v1 import inference_pb2 as pb
from tests.cli.conftest import RunCli
from tests.clients.fake_answers import accepted, finished, refuse, tokens
from tests.clients.fake_cluster import FakeCluster


def test_streams_text(run_cli: RunCli, cluster: FakeCluster) -> None:
    result = run_cli("generate", "hello", "--address", cluster.address)
    assert (result.exit_code, result.stdout) == (0, "hello\n")


def test_json_is_the_whole_result(run_cli: RunCli, cluster: FakeCluster) -> None:
    result = run_cli("generate", "hi", "--json", "--address", cluster.address)
    values = json.loads(result.stdout)
    assert (values["text"], values["token_ids"], values["finish_reason"]) == ("hi", [104, 105], "stop")
    assert values["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "media_tokens": 4,
        "cached_tokens": 2,
        "cached_media": 1,
    }
    assert values["stages"] == [
        {"stage": "prefill", "instance": "p-0", "start_ms": 1.5, "end_ms": 9.0, "transport": "shm"}
    ]
    assert {"ttft_ms", "tpot_ms"} < set(values)


def test_sends_pictures_and_options(run_cli: RunCli, cluster: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    words = ("--image", tmp_path / "a.png", "--image", "https://example.com/b.png", "--system", "be brief")
    options = (
        "--max-tokens",
        5,
        "--temperature",
        0.5,
        "--seed",
        3,
        "--stop",
        "x",
        "--stop",
        "y",
        "--ignore-eos",
        "--cache-scope",
        "none",
        "--cache-salt",
        "s",
    )
    result = run_cli("generate", "hello", *words, *options, "--address", cluster.address)
    assert result.exit_code == 0
    request = cluster.requests[0]
    assert [message.role for message in request.messages] == ["system", "user"]
    assert request.messages[1].parts[1].image.url == "https://example.com/b.png"
    assert cluster.uploads == [b"picture"]
    assert (request.sampling.max_tokens, request.sampling.temperature, request.sampling.seed) == (5, 0.5, 3)
    assert (list(request.stop.strings), request.stop.ignore_eos) == (["x", "y"], True)
    assert (request.cache_scope, request.cache_salt) == (pb.CACHE_SCOPE_NONE, "s")


def test_a_missing_picture_is_wrong_usage(run_cli: RunCli) -> None:
    result = run_cli("generate", "x", "--image", "/no/such.png")
    assert result.exit_code == 2
    assert "/no/such.png" in result.stderr


def test_a_refused_request_names_the_field(run_cli: RunCli, cluster: FakeCluster) -> None:
    cluster.answer = lambda _, context: iter(
        [refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "too hot", field="sampling.temperature")]  # type: ignore[list-item]
    )
    result = run_cli("generate", "x", "--json", "--address", cluster.address)
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert (error["code"], error["field"]) == ("INVALID_ARGUMENT", "sampling.temperature")
    assert "sampling.temperature: too hot" in result.stderr


def test_nobody_there(run_cli: RunCli) -> None:
    assert run_cli("generate", "x", "--address", "127.0.0.1:1").exit_code == 3


def test_sends_what_the_answer_has_to_be(run_cli: RunCli, cluster: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text(
        '[{"name": "f", "parameters": {"type": "object"}}, {"type": "function", "function": {"name": "g"}}]'
    )
    words = ("--tools", tmp_path / "tools.json", "--logit-bias", "5=-1.5", "--logit-bias", "7=2")
    more = ("--stop-token-id", 9, "--stop-token-id", 8, "--model", "echo", "--resumable", 2.5)
    assert run_cli("generate", "hi", *words, *more, "--address", cluster.address).exit_code == 0
    [request] = cluster.requests
    assert [(tool.name, tool.parameters) for tool in request.tools] == [
        ("f", '{"type": "object"}'),
        ("g", ""),
    ]
    assert dict(request.sampling.logit_bias) == {5: -1.5, 7: 2}
    assert (list(request.stop.token_ids), request.model) == ([9, 8], "echo")
    assert request.resumable.ToTimedelta().total_seconds() == 2.5
    assert not request.HasField("format")


@pytest.mark.parametrize(
    ("words", "kind", "value"),
    [
        (("--json-object",), "json_object", True),
        (("--json-schema", "{file}"), "json_schema", '{"a": 1}'),
        (("--regex", "a+"), "regex", "a+"),
        (("--grammar", "{file}"), "grammar", '{"a": 1}'),
    ],
)
def test_sends_formats(
    run_cli: RunCli, cluster: FakeCluster, tmp_path: Path, words: tuple[str, ...], kind: str, value: object
) -> None:
    (tmp_path / "form").write_text('{"a": 1}')
    given = [word.format(file=tmp_path / "form") for word in words]
    assert run_cli("generate", "hi", *given, "--address", cluster.address).exit_code == 0
    assert cluster.requests[0].format.WhichOneof("kind") == kind
    assert getattr(cluster.requests[0].format, kind) == value


def test_a_raw_prompt_has_no_messages(run_cli: RunCli, cluster: FakeCluster) -> None:
    cluster.answer = lambda request, _: iter([accepted("r"), tokens(0, request.prompt.text), finished(1)])
    result = run_cli("generate", "as it is", "--raw", "--address", cluster.address)
    assert (result.exit_code, result.stdout) == (0, "as it is\n")
    assert not cluster.requests[0].messages


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--json-object", "--regex", "a"), "only one of them"),
        (("--json-schema", "/no/such"), "--json-schema: /no/such cannot be read"),
        (("--json-schema", "{file}"), "is no JSON"),
        (("--tools", "{file}"), "is no JSON"),
        (("--tools", "{object}"), "holds no list"),
        (("--logit-bias", "a=1"), "'a=1' is not TOKEN_ID=BIAS"),
        (("--logit-bias", "5"), "'5' is not TOKEN_ID=BIAS"),
        (("--raw", "--system", "x"), "--raw: there is no place"),
    ],
)
def test_wrong_usage(run_cli: RunCli, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "file").write_text("{")
    (tmp_path / "object").write_text("{}")
    given = [word.format(file=tmp_path / "file", object=tmp_path / "object") for word in words]
    result = run_cli("generate", "x", *given, "--address", "127.0.0.1:1")
    assert result.exit_code == 2
    assert said in result.stderr
