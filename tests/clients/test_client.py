import dataclasses
from pathlib import Path

import grpc
import pytest
from PIL import Image

from elasticmm.v1 import inference_pb2 as pb
from elasticmm_client import (
    Accepted,
    AccessDenied,
    AlreadyRunning,
    Cancelled,
    Client,
    DeadlineExceeded,
    Finished,
    InvalidRequest,
    NotRunning,
    Overloaded,
    ServerError,
    Tokens,
    TransferStatus,
    Unavailable,
    user_message,
)
from tests.clients import fake_answers, fake_records
from tests.clients.fake_answers import refuse
from tests.clients.fake_cluster import FakeCluster


def test_streams_events_in_order(client: Client) -> None:
    events = list(client.generate("hé!", request_id="mine", seed=3))
    assert events[0] == Accepted("mine", "echo", 3, 7)
    assert events[1:4] == [Tokens(i, (ord(c),), c) for i, c in enumerate("hé!")]
    assert isinstance(events[4], Finished)
    assert [event.text for event in events] == ["", "h", "é", "!", ""]


def test_gathers_the_result(client: Client) -> None:
    stream = client.generate("abc", logprobs=1)
    next(stream), next(stream)  # what was iterated counts too
    result = stream.result()
    assert (result.text, result.token_ids) == ("abc", (97, 98, 99))
    assert [each.top[0].token_id for each in result.logprobs] == [97, 98, 99]
    assert (result.finish_reason, result.stop_string) == ("stop", "!")
    assert dataclasses.astuple(result.usage) == (7, 3, 4, 2, 1)
    assert dataclasses.astuple(result.stages[0]) == ("prefill", "p-0", 1.5, 9.0, "shm")
    assert result.ttft_ms is not None
    assert result.tpot_ms is not None


def test_sends_every_option(client: Client, cluster: FakeCluster) -> None:
    client.generate(
        [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
        model="echo",
        max_tokens=1,
        temperature=0.0,
        top_p=0.5,
        top_k=3,
        min_p=0.25,
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        repetition_penalty=1.5,
        seed=0,
        logprobs=0,
        logit_bias={7: 1.5},
        stop=["x", "y"],
        stop_token_ids=[1, 2],
        ignore_eos=True,
        tenant="t",
        cache_scope="cluster",
        cache_salt="s",
        priority=-3,
        deadline_s=2.5,
    ).text()
    request = cluster.requests[0]
    assert [message.role for message in request.messages] == ["system", "user"]
    assert len(request.sampling.ListFields()) == len(request.sampling.DESCRIPTOR.fields)
    assert (request.sampling.min_p, request.sampling.repetition_penalty) == (0.25, 1.5)
    assert list(request.stop.strings) == ["x", "y"]
    assert (list(request.stop.token_ids), request.stop.ignore_eos) == ([1, 2], True)
    assert (request.cache_scope, request.cache_salt) == (pb.CACHE_SCOPE_CLUSTER, "s")
    assert (request.tenant, request.priority, request.deadline.ToMilliseconds()) == ("t", -3, 2500)


def test_leaves_unset_what_is_not_given(client: Client, cluster: FakeCluster) -> None:
    client.generate("hi", stop="x").text()
    request = cluster.requests[0]
    assert not request.sampling.ListFields()
    assert not request.HasField("deadline")
    assert list(request.stop.strings) == ["x"]


def test_uploads_each_picture_once(client: Client, cluster: FakeCluster, tmp_path: Path) -> None:
    image = Image.new("CMYK", (4, 4))
    file = tmp_path / "a.png"
    image.convert("RGB").save(file)
    text = client.generate([user_message("x", file, str(file), file.read_bytes(), image)]).text()
    client.generate([user_message("y", file)]).text()
    assert text == "x####"
    assert len(cluster.uploads) == 2
    assert all(len(part.image.digest) == 32 for part in cluster.requests[0].messages[0].parts[:4])


def test_uploads_again_when_the_gateway_may_have_dropped_it(client: Client, cluster: FakeCluster) -> None:
    cluster.media_ttl_s = 0
    for _ in range(2):
        client.generate([user_message("x", b"picture")]).text()
    assert len(cluster.uploads) == 2


def test_uploads_again_what_the_gateway_lost(client: Client, cluster: FakeCluster) -> None:
    client.generate([user_message("x", b"picture")]).text()
    cluster.uploads.clear()
    assert client.generate([user_message("x", b"picture")]).text() == "x#"
    assert cluster.uploads == [b"picture"]


def test_uploads_a_picture_for_each_tenant(client: Client, cluster: FakeCluster) -> None:
    for tenant in ("a", "b", "a"):
        assert client.generate([user_message("x", b"picture")], tenant=tenant).text() == "x#"
    assert len(cluster.uploads) == 2
    assert {tenant for tenant, _ in cluster.brought} == {"a", "b"}


def test_cuts_large_uploads(client: Client, cluster: FakeCluster) -> None:
    data = bytes(range(256)) * 10_000
    client.generate([user_message("x", data)]).text()
    assert cluster.uploads == [data]


def test_sends_pictures_inline_without_a_gateway(client: Client, cluster: FakeCluster) -> None:
    cluster.has_gateway = False
    client.generate([user_message("x", b"picture")]).text()
    assert cluster.requests[0].messages[0].parts[0].image.data == b"picture"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "url": "https://example.com/a.png"},
        {"type": "image", "image": "https://example.com/a.png"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": "https://example.com/a.png"},
    ],
)
def test_passes_urls_on(client: Client, cluster: FakeCluster, part: dict[str, object]) -> None:
    client.generate([{"role": "user", "content": [part]}]).text()
    assert cluster.requests[0].messages[0].parts[0].image.url == "https://example.com/a.png"
    assert not cluster.uploads


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "sound"}]}], "messages[0].parts[0]"),
        ([{"role": "user", "content": [{"type": "image"}]}], "messages[0].parts[0].image"),
        ([user_message("x", "/no/such/file.png")], "messages[0].parts[0].image"),
        ([user_message("x", 3.0)], "messages[0].parts[0].image"),
        ([user_message("x"), user_message("x", b"ok", b"broken")], "messages[1].parts[1].image"),
    ],
)
def test_bad_messages_name_the_field(client: Client, messages: list[dict[str, object]], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.generate(messages).text()
    assert caught.value.field == field
    assert str(caught.value).startswith(field)


def test_values_that_fit_no_field_name_it(client: Client) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.generate("x", max_tokens=-1)
    assert caught.value.field == "sampling.max_tokens"


def test_an_unknown_scope_names_its_field(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="none, tenant, cluster") as caught:
        client.generate("x", cache_scope="all")  # type: ignore[typeddict-item]
    assert caught.value.field == "cache_scope"


def test_unknown_options_are_a_type_error(client: Client) -> None:
    with pytest.raises(TypeError, match="max_token"):
        client.generate("x", max_token=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (grpc.StatusCode.NOT_FOUND, InvalidRequest),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded),
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, Cancelled),
        (grpc.StatusCode.ALREADY_EXISTS, AlreadyRunning),
        (grpc.StatusCode.UNAUTHENTICATED, AccessDenied),
        (grpc.StatusCode.INTERNAL, ServerError),
    ],
)
def test_statuses_become_typed_errors(
    client: Client, cluster: FakeCluster, code: grpc.StatusCode, kind: type[Exception]
) -> None:
    cluster.answer = lambda _, context: iter([refuse(context, code, "because")])  # type: ignore[list-item]
    with pytest.raises(kind, match="because") as caught:
        client.generate("x").text()
    assert type(caught.value) is kind


def test_reads_error_details(client: Client, cluster: FakeCluster) -> None:
    cluster.answer = lambda _, context: iter(
        [refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "too hot", field="sampling.temperature")]  # type: ignore[list-item]
    )
    with pytest.raises(InvalidRequest) as invalid:
        client.generate("x").text()
    assert (invalid.value.field, invalid.value.message) == (
        "sampling.temperature",
        "sampling.temperature: too hot",
    )
    cluster.answer = lambda _, context: iter(
        [refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after_s=3)]  # type: ignore[list-item]
    )
    with pytest.raises(Overloaded) as overloaded:
        client.generate("x").text()
    assert overloaded.value.retry_after_s == 3


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nobody.invalid:1"])
def test_nobody_listening_is_not_running(address: str) -> None:
    with Client(address) as client, pytest.raises(NotRunning):
        client.generate("x").text()


def test_cancel_ends_the_stream_and_the_call(client: Client, cluster: FakeCluster) -> None:
    cluster.answer = fake_answers.endless
    stream = client.generate("x")
    next(stream), next(stream)
    stream.cancel()
    assert list(stream) == []
    assert stream.text() == "x"
    with pytest.raises(Cancelled):
        stream.result()
    assert cluster.ended.wait(60)


def test_leaving_the_context_cancels(client: Client, cluster: FakeCluster) -> None:
    cluster.answer = fake_answers.endless
    with client.generate("x") as stream:
        next(stream)
    assert cluster.ended.wait(60)


def test_call_timeout(client: Client, cluster: FakeCluster) -> None:
    cluster.answer = fake_answers.endless
    with pytest.raises(DeadlineExceeded):
        client.generate("x", timeout_s=0.1).text()


@pytest.mark.parametrize("indices", [[0, 2], [0, 0], [1]])
def test_a_broken_order_of_tokens_is_an_error(
    client: Client, cluster: FakeCluster, indices: list[int]
) -> None:
    cluster.answer = lambda *_: (fake_answers.tokens(index, "x") for index in indices)
    with pytest.raises(ServerError, match="was next"):
        client.generate("x").text()


def test_an_end_without_finished_is_an_error(client: Client, cluster: FakeCluster) -> None:
    cluster.answer = lambda *_: iter([fake_answers.accepted("a"), fake_answers.tokens(0, "x")])
    with pytest.raises(ServerError, match="ended before"):
        client.generate("x").text()


def test_status(client: Client) -> None:
    status = client.status()
    assert [(each.id, each.roles) for each in status.instances] == [
        ("e-0", ("encode",)),
        ("pd-0", ("prefill", "decode")),
    ]
    assert (status.requests_running, status.instances[0].free_kv_blocks, status.is_ready) == (2, 90, True)


def test_status_has_transfers(client: Client, cluster: FakeCluster) -> None:
    cluster.transfers = [fake_records.sent(aborted=1, in_flight=2, failures={"TLS": 4})]
    encoder, other = client.status().instances
    assert encoder.transfers == (TransferStatus("pd-0", "shm", 3, 1, 2, 2 << 20, 0.5, {"TLS": 4}),)
    assert (other.transfers, other.quarantined_blocks) == ((), 7)


def test_status_needs_the_token(cluster: FakeCluster) -> None:
    with Client(cluster.address) as client, pytest.raises(AccessDenied):
        client.status()
