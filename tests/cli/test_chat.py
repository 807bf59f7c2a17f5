import json
from pathlib import Path

import grpc
import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.conversation.talk import Talk
from cli.conversation.turns import converse
from cli.main import build_app
from elasticmm_client import Client
from tests.clients.fake_answers import refuse
from tests.clients.fake_cluster import FakeCluster


def chat(cluster: FakeCluster, lines: str, *words: object) -> Result:
    command = ["chat", "--address", cluster.address, *map(str, words)]
    return CliRunner().invoke(build_app(["chat", "status"]), command, input=lines)


def texts(cluster: FakeCluster, number: int) -> list[tuple[str, str]]:
    messages = cluster.requests[number].messages
    return [(each.role, "".join(part.text for part in each.parts)) for each in messages]


def test_a_turn_has_what_was_said_before(cluster: FakeCluster) -> None:
    result = chat(cluster, "hello\n\nagain\n/quit\nnever\n", "--system", "be brief", "--max-tokens", 9)
    assert (result.exit_code, result.stdout) == (0, "hello\nagain\n")
    assert texts(cluster, 1) == [
        ("system", "be brief"),
        ("user", "hello"),
        ("assistant", "hello"),
        ("user", "again"),
    ]
    assert [each.sampling.max_tokens for each in cluster.requests] == [9, 9]


def test_usage_follows_each_answer(cluster: FakeCluster) -> None:
    said = chat(cluster, "hello\n").stderr
    assert "[7 tokens in (2 cached, 1 pictures cached), 5 out, first after " in said


def test_pictures_go_with_the_next_turn_and_stay_in_it(cluster: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    lines = f"/image {tmp_path / 'a.png'}\n/image https://example.com/b.png\nlook\nand?\n"
    assert chat(cluster, lines).stdout == "look##\nand?\n"
    first = cluster.requests[1].messages[0]
    assert [part.image.url for part in first.parts] == ["", "https://example.com/b.png", ""]
    assert cluster.uploads == [b"picture"]


def test_a_backslash_goes_on_in_the_next_line(cluster: FakeCluster) -> None:
    chat(cluster, "first\\\n  second\\\n\nnext\nlast\\\n")
    asked = [texts(cluster, number)[-1][1] for number in range(len(cluster.requests))]
    assert asked == ["first\n  second", "next", "last"]


def test_reset_forgets_all_but_the_system_message(cluster: FakeCluster) -> None:
    chat(cluster, "hello\n/reset\nagain\n", "--system", "be brief")
    assert texts(cluster, 1) == [("system", "be brief"), ("user", "again")]


def test_json_is_an_object_per_answer(cluster: FakeCluster) -> None:
    answers = [json.loads(line) for line in chat(cluster, "a\nbc\n", "--json").stdout.splitlines()]
    assert [each["text"] for each in answers] == ["a", "bc"]
    assert answers[0]["usage"]["cached_tokens"] == 2


@pytest.mark.parametrize("line", ["/image /no/such.png", "/image", "/dance"])
def test_what_a_pipe_gets_wrong_ends_it(cluster: FakeCluster, line: str) -> None:
    result = chat(cluster, f"{line}\nhello\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert line.split(maxsplit=1)[0] in result.stderr


def test_at_a_terminal_a_refused_turn_is_taken_back(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    echo, lines = cluster.answer, iter(["bad", "/image /no/such.png", "good"])

    def type_in(_: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    def answer(request: object, context: grpc.ServicerContext) -> object:
        if request.messages[-1].parts[0].text == "bad":
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "too bad", field="messages")
        return echo(request, context)

    cluster.answer = answer
    monkeypatch.setattr("builtins.input", type_in)
    with Client(cluster.address) as client:
        converse(client, Talk(), {}, is_terminal=True, as_json=False)
    out, err = capsys.readouterr()
    assert out == "good\n"
    assert "too bad" in err
    assert "/no/such.png" in err
    assert texts(cluster, 1) == [("user", "good")]


def test_ctrl_c_takes_the_turn_back(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.conversation.turns._stream", interrupt)
    talk = Talk()
    monkeypatch.setattr("sys.stdin", iter(["hello\n"]))
    with Client(cluster.address) as client:
        converse(client, talk, {}, is_terminal=False, as_json=False)
    assert "taken back" in capsys.readouterr().err
    assert len(talk.ask("next")) == 1


def test_nobody_there() -> None:
    command = ["chat", "--address", "127.0.0.1:1"]
    assert CliRunner().invoke(build_app(["chat", "status"]), command, input="x\n").exit_code == 3
