"""The protocol end to end: a coordinator with fake stages, asked over loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coordinator.server import OPEN_INFERENCE
from elasticmm.oip import open_inference_pb2 as pb
from tests.coordinator.conftest import Bench, MakeBench, picture
from tests.coordinator.fake_stage import fake_token
from tests.coordinator.oip.conftest import (
    add_input,
    fail_infer,
    infer,
    infer_request,
    outputs_of,
    stream_infer,
    stub_of,
)
from tests.coordinator.test_cached import settle

CODES = grpc.StatusCode
ALL = ("text_output", "output_ids", "finish_reason", "num_input_tokens", "num_output_tokens", "seed")


async def test_same_as_generate(bench: Bench) -> None:
    answer = await bench.ask(text="hi", max_tokens=9, seed=5)
    outputs = await infer(bench, text="hi", max_tokens=9, seed=5, outputs=ALL)
    assert outputs == {
        "text_output": [answer.text.encode()],
        "output_ids": answer.token_ids,
        "finish_reason": [b"length"],
        "num_input_tokens": [answer.finished.usage.prompt_tokens],
        "num_output_tokens": [9],
        "seed": [5],
    }
    await bench.assert_idle()


async def test_pictures(make_bench: MakeBench) -> None:
    bench = await make_bench("ep", "d", gateway=True)
    images = [picture(), picture("JPEG")]
    one = await infer(bench, text="hi", images=images, max_tokens=4, seed=2, outputs=ALL)
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "hi"}]}
    ]
    same = await infer(bench, text=None, messages=messages, images=images, max_tokens=4, seed=2, outputs=ALL)
    assert one == same
    assert one["output_ids"] == [fake_token(2, index) for index in range(4)]
    await bench.assert_idle()


async def test_what_came_from_caches(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", gateway=True)
    outputs = ("num_input_tokens", "num_cached_tokens", "num_cached_media")
    asked = {"text": "a question of more than a block", "images": [picture()], "outputs": outputs}
    first = await infer(bench, **asked)
    assert (first["num_cached_tokens"], first["num_cached_media"]) == ([0], [0])
    await settle(bench)
    again = await infer(bench, **asked)
    assert again["num_input_tokens"][0] > again["num_cached_tokens"][0] > 0
    assert again["num_cached_media"] == [1]


async def test_response(bench: Bench) -> None:
    response = await stub_of(bench).ModelInfer(infer_request(id="mine", max_tokens=2, request_id="theirs"))
    assert (response.model_name, response.model_version) == (bench.coordinator.model.name, "1")
    assert response.id == "mine"
    assert response.parameters["request_id"].string_param == "theirs"
    assert response.parameters["triton_final_response"].bool_param


async def test_raw_comes_back_raw(bench: Bench) -> None:
    request = pb.ModelInferRequest(raw_input_contents=[b"\x02\0\0\0hi", b"\x03\0\0\0"])
    request.inputs.add(name="text_input", datatype="BYTES", shape=[1, 1])
    request.inputs.add(name="max_tokens", datatype="INT32", shape=[1, 1])
    request.outputs.add(name="num_output_tokens")
    response = await stub_of(bench).ModelInfer(request)
    assert list(response.raw_output_contents) == [b"\x03\0\0\0"]
    request.parameters["binary_data_output"].bool_param = False
    assert outputs_of(await stub_of(bench).ModelInfer(request)) == {"num_output_tokens": [3]}


async def test_echo(bench: Bench) -> None:
    without = await infer(bench, text="hi", max_tokens=4, seed=1)
    echoed = await infer(bench, text="hi", max_tokens=4, seed=1, exclude_input_in_output=False)
    assert echoed["text_output"] == [b"hi" + without["text_output"][0]]


async def test_stream_is_the_same_answer(bench: Bench) -> None:
    whole = await infer(bench, text="hi", max_tokens=12, seed=4, outputs=ALL)
    request = infer_request("hi", max_tokens=12, seed=4, outputs=ALL, stream=True, id="s")
    responses = [each.infer_response for each in await stream_infer(bench, request)]
    told = [outputs_of(each) for each in responses]
    assert len(told) >= 2
    assert [each.parameters["triton_final_response"].bool_param for each in responses] == [
        *[False] * (len(told) - 1),
        True,
    ]
    assert [token for each in told for token in each["output_ids"]] == whole["output_ids"]
    assert b"".join(each["text_output"][0] for each in told) == whole["text_output"][0]
    assert {name: told[-1][name] for name in ALL[2:]} == {name: whole[name] for name in ALL[2:]}
    assert all(set(each) == {"text_output", "output_ids"} for each in told[:-1])


async def test_unstreamed_on_a_stream(bench: Bench) -> None:
    (response,) = await stream_infer(bench, infer_request("hi", max_tokens=5, seed=4, outputs=["output_ids"]))
    assert outputs_of(response.infer_response)["output_ids"] == [fake_token(4, index) for index in range(5)]


async def test_requests_side_by_side(bench: Bench) -> None:
    requests = [
        infer_request(max_tokens=6, seed=seed, stream=True, id=str(seed), outputs=["output_ids"])
        for seed in range(8)
    ]
    requests.append(infer_request(id="bad", top_p=2.0))
    ids: dict[str, list[int]] = {}
    for each in await stream_infer(bench, *requests):
        outputs = outputs_of(each.infer_response)
        ids.setdefault(each.infer_response.id, []).extend(outputs.get("output_ids", []))
        is_bad = each.infer_response.id == "bad"
        assert each.error_message == ("INVALID_ARGUMENT: top_p: 2 is not in (0, 1]" if is_bad else "")
    assert ids.pop("bad") == []
    assert ids == {str(seed): [fake_token(seed, index) for index in range(6)] for seed in range(8)}
    await bench.assert_idle()


async def test_cancelled_stream(bench: Bench) -> None:
    for stage in bench.stages:
        stage.pause_at = 2

    async def send() -> AsyncIterator[pb.ModelInferRequest]:
        for _ in range(3):
            yield infer_request(max_tokens=9, stream=True)

    call = stub_of(bench).ModelStreamInfer(send())
    await bench.until(lambda: bench.num_requests == 3)
    call.cancel()
    await bench.until(lambda: not bench.num_requests)
    for stage in bench.stages:
        stage.pause_at = None
    await bench.assert_idle()


def _with_ids(token_ids: list[int]) -> pb.ModelInferRequest:
    request = infer_request(None, outputs=["num_input_tokens"])
    add_input(request, "input_ids", "INT32", token_ids)
    return request


async def test_a_raw_prompt(bench: Bench) -> None:
    outputs = outputs_of(await stub_of(bench).ModelInfer(_with_ids([40, 41, 42])))
    assert outputs == {"num_input_tokens": [3]}


BAD = {
    "model": (infer_request(model="other"), CODES.NOT_FOUND, "model_name"),
    "stream": (infer_request(stream=True), CODES.INVALID_ARGUMENT, "stream"),
    "temperature": (infer_request(temperature=9.0), CODES.INVALID_ARGUMENT, "temperature"),
    "in JSON": (infer_request(sampling_parameters='{"min_p": 2}'), CODES.INVALID_ARGUMENT, "min_p"),
    "max_tokens": (infer_request(max_tokens=0), CODES.INVALID_ARGUMENT, "max_tokens"),
    "context": (infer_request(max_tokens=2**31), CODES.INVALID_ARGUMENT, "max_tokens"),
    "stop": (infer_request(stop=""), CODES.INVALID_ARGUMENT, "stop[0]"),
    "stop_words": (infer_request(stop_words=""), CODES.INVALID_ARGUMENT, "stop_words[0]"),
    "stop id": (infer_request(stop_token_ids=2**31), CODES.INVALID_ARGUMENT, "stop_token_ids[0]"),
    "logprobs": (infer_request(logprobs=21), CODES.INVALID_ARGUMENT, "logprobs"),
    "request_id": (infer_request(request_id="x" * 129), CODES.INVALID_ARGUMENT, "request_id"),
    "bias": (infer_request(logit_bias='{"1": 101}'), CODES.INVALID_ARGUMENT, "logit_bias[1]"),
    "schema": (
        infer_request(guided_decoding_guide_type="json_schema", guided_decoding_guide="{"),
        CODES.INVALID_ARGUMENT,
        "guided_decoding_guide",
    ),
    "regex": (
        infer_request(guided_decoding_guide_type="regex", guided_decoding_guide="("),
        CODES.INVALID_ARGUMENT,
        "guided_decoding_guide",
    ),
    "ids": (_with_ids([1, 2**31 - 1]), CODES.INVALID_ARGUMENT, "input_ids.ids[1]"),
    "no ids": (_with_ids([]), CODES.INVALID_ARGUMENT, "input_ids"),
    "empty picture": (infer_request(images=[b"\xff", b""]), CODES.INVALID_ARGUMENT, "image[1]"),
    "long text": (infer_request("word " * 5000), CODES.INVALID_ARGUMENT, "text_input"),
    "no messages": (infer_request(None, messages=[]), CODES.INVALID_ARGUMENT, "messages"),
    "role": (
        infer_request(None, messages=[{"role": "boss", "content": "a"}]),
        CODES.INVALID_ARGUMENT,
        "messages[0].role",
    ),
    "empty content": (
        infer_request(None, messages=[{"role": "user", "content": []}]),
        CODES.INVALID_ARGUMENT,
        "messages[0].content",
    ),
    "empty URL": (
        infer_request(
            None,
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": ""}}]}],
        ),
        CODES.INVALID_ARGUMENT,
        "messages[0].content[0].image_url.url",
    ),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad(bench: Bench, case: str) -> None:
    request, code, field = BAD[case]
    failure = await fail_infer(bench, request)
    assert (failure.code, failure.field) == (code, field)
    assert failure.message.startswith(f"{field}: ")
    await bench.assert_idle()


async def test_broken_picture(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", gateway=True)
    failure = await fail_infer(bench, infer_request(images=[picture(), b"\x89PNG no more"]))
    assert (failure.code, failure.field) == (CODES.INVALID_ARGUMENT, "image[1]")
    await bench.assert_idle()


async def test_timeout(bench: Bench) -> None:
    for stage in bench.stages:
        stage.pause_at = 1
    assert (await fail_infer(bench, infer_request(timeout=50_000))).code == CODES.DEADLINE_EXCEEDED


async def test_metadata(bench: Bench) -> None:
    stub, name = stub_of(bench), bench.coordinator.model.name
    assert (await stub.ServerMetadata(pb.ServerMetadataRequest())).name == "elasticmm"
    model = await stub.ModelMetadata(pb.ModelMetadataRequest(name=name, version="1"))
    inputs = {each.name: (each.datatype, list(each.shape)) for each in model.inputs}
    assert inputs["image"] == ("BYTES", [-1])
    assert inputs["temperature"] == ("FP32", [1])
    assert (model.outputs[0].name, model.outputs[0].datatype) == ("text_output", "BYTES")
    for other in (pb.ModelMetadataRequest(name="x"), pb.ModelMetadataRequest(version="2")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelMetadata(other)
        assert caught.value.code() == CODES.NOT_FOUND


async def test_config_says_what_the_metadata_say(bench: Bench) -> None:
    stub = stub_of(bench)
    config = (await stub.ModelConfig(pb.ModelConfigRequest())).config
    model = await stub.ModelMetadata(pb.ModelMetadataRequest())
    assert [(each.name, list(each.dims)) for each in config.input] == [
        (each.name, list(each.shape)) for each in model.inputs
    ]
    assert [(each.name, list(each.dims)) for each in config.output] == [
        (each.name, list(each.shape)) for each in model.outputs
    ]
    types = {each.name: pb.DataType.Name(each.data_type) for each in (*config.input, *config.output)}
    assert (types["messages"], types["seed"], types["logit_bias"]) == (
        "TYPE_STRING",
        "TYPE_UINT64",
        "TYPE_STRING",
    )
    assert config.dynamic_batching.default_priority_level == 11
    assert config.parameters["context_tokens"].string_value == str(bench.coordinator.model.context_tokens)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelConfig(pb.ModelConfigRequest(name="x"))
    assert caught.value.code() == CODES.NOT_FOUND


async def test_every_input_of_the_metadata_is_known(bench: Bench) -> None:
    model = await stub_of(bench).ModelMetadata(pb.ModelMetadataRequest())
    for each in model.inputs:
        wrong = ("BOOL", True) if each.datatype == "FP32" else ("FP64", 1.0)
        request = infer_request(None)
        add_input(request, each.name, wrong[0], [wrong[1]])
        failure = await fail_infer(bench, request)
        assert failure.message == f"{each.name}: is {wrong[0]}, not {each.datatype}"


async def test_readiness(make_bench: MakeBench) -> None:
    bench = await make_bench("e", "p")
    stub, health = stub_of(bench), health_pb2_grpc.HealthStub(bench.channel)
    assert (await stub.ServerLive(pb.ServerLiveRequest())).live
    assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready
    assert not (await stub.ModelReady(pb.ModelReadyRequest())).ready
    asked = health_pb2.HealthCheckRequest(service=OPEN_INFERENCE)
    assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.NOT_SERVING
    await bench.add("d")
    assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
    assert (await stub.ModelReady(pb.ModelReadyRequest())).ready
    assert not (await stub.ModelReady(pb.ModelReadyRequest(name="other"))).ready
    assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.SERVING
