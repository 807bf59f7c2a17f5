"""The gRPC door and that of the Open Inference Protocol: messages from asks, answers from what comes back."""

from __future__ import annotations

import json
from typing import Any

import grpc

from elasticmm.oip import open_inference_pb2 as oip
from elasticmm.oip import open_inference_pb2_grpc as oip_grpc
from elasticmm.v1 import inference_pb2 as pb
from elasticmm.v1 import inference_pb2_grpc as pb_grpc
from elasticmm_client import Client, ElasticMMError
from elasticmm_client.messages import parse_messages, pictures_of
from elasticmm_client.request import build_request
from elasticmm_client.uploads import digest_of
from tests.coordinator.oip.conftest import infer_request
from tests.integration.parameters.asks import Answer, Ask

TIMEOUT_S = 120.0
INLINE = {"inline": True}  # pictures within the request, not uploaded
_FINISHES = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length"}
_OUTPUTS = (
    "text_output",
    "output_ids",
    "finish_reason",
    "num_input_tokens",
    "num_output_tokens",
    "num_cached_tokens",
)
_GUIDES = {"json_schema": "json_schema", "regex": "regex", "grammar": "lark_grammar"}


class GrpcDoor:
    """By the Python client, or with INLINE by its request alone."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._channel = grpc.insecure_channel(client.address)

    def sent(self, ask: Ask) -> pb.GenerateRequest:
        messages = parse_messages(() if "prompt" in ask.options else ask.messages)
        uploaded = {} if ask.own else {each.data: digest_of(each.data) for each in pictures_of(messages)}
        return build_request(messages, ask.options, uploaded)

    def ask(self, ask: Ask) -> Answer:
        if ask.own:
            return self._ask_inline(ask)
        messages = () if "prompt" in ask.options else ask.messages
        try:
            result = self._client.generate(messages, **ask.options).result()
        except ElasticMMError as error:
            return Answer(error=error.code, named=getattr(error, "field", ""), raw=error)
        return Answer(
            text=result.text,
            finish=result.finish_reason,
            num_tokens=len(result.token_ids),
            prompt_tokens=result.usage.prompt_tokens,
            cached_tokens=result.usage.cached_tokens,
            request_id=result.request_id,
            logprobs=tuple(len(each.top) for each in result.logprobs),
            token_ids=result.token_ids,
            raw=result,
        )

    def _ask_inline(self, ask: Ask) -> Answer:
        events = list(pb_grpc.InferenceStub(self._channel).Generate(self.sent(ask), timeout=TIMEOUT_S))
        last = events[-1].finished
        return Answer(
            text="".join(event.tokens.text for event in events),
            finish=_FINISHES[last.reason],
            num_tokens=last.usage.completion_tokens,
            prompt_tokens=last.usage.prompt_tokens,
            cached_tokens=last.usage.cached_tokens,
        )

    def close(self) -> None:
        self._channel.close()


class OipDoor:
    """Options as request parameters; a list as an input tensor."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stub = oip_grpc.GRPCInferenceServiceStub(self._channel)

    def sent(self, ask: Ask) -> oip.ModelInferRequest:
        options = {
            k: v
            for name, value in ask.options.items()
            if name != "prompt"
            for k, v in _option(name, value).items()
        }
        options |= ask.own
        inputs: dict[str, tuple[str, list[Any]]] = {}
        for name in ("stop_words", "stop", "stop_token_ids"):
            if name in options:
                inputs[name] = ("INT32" if name == "stop_token_ids" else "BYTES", options.pop(name))
        request = infer_request(
            None, outputs=_OUTPUTS, model=options.pop("model", ""), **_content(ask), **options
        )
        for name, (datatype, values) in inputs.items():
            tensor = request.inputs.add(name=name, datatype=datatype, shape=[len(values)])
            if datatype == "BYTES":
                tensor.contents.bytes_contents.extend(value.encode() for value in values)
            else:
                tensor.contents.int_contents.extend(values)
        _add_content(request, ask)
        return request

    def ask(self, ask: Ask) -> Answer:
        request = self.sent(ask)
        if "stream" in ask.own:
            responses = [each.infer_response for each in self._stub.ModelStreamInfer(iter([request]))]
            return _oip_answer(responses)
        try:
            return _oip_answer([self._stub.ModelInfer(request, timeout=TIMEOUT_S)])
        except grpc.RpcError as error:
            return Answer(error=error.code().name, named=error.details().partition(":")[0], raw=error)

    def close(self) -> None:
        self._channel.close()


def _content(ask: Ask) -> dict[str, Any]:
    """`infer_request` writes messages; all else is added after it."""
    return {} if isinstance(ask.messages, str) or "prompt" in ask.options else _messages(ask.messages)


def _messages(messages: Any) -> dict[str, Any]:
    """Pictures as elements of `image`."""
    images = [
        part["image"]
        for each in messages
        for part in each.get("content") or ()
        if isinstance(part, dict) and "image" in part
    ]
    return {"messages": [_message(each) for each in messages], "images": images}


def _message(message: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(message.get("content"), list):
        return message
    parts = [{k: v for k, v in part.items() if k != "image"} for part in message["content"]]
    return message | {"content": parts}


def _add_content(request: oip.ModelInferRequest, ask: Ask) -> None:
    prompt = ask.options.get("prompt")
    if isinstance(prompt, list):
        request.inputs.add(
            name="input_ids", datatype="INT32", shape=[len(prompt)]
        ).contents.int_contents.extend(prompt)
    elif prompt is not None or isinstance(ask.messages, str):
        name, text = ("text_input", ask.messages) if prompt is None else ("prompt", prompt)
        request.inputs.add(name=name, datatype="BYTES", shape=[1]).contents.bytes_contents.append(
            text.encode()
        )


def _option(name: str, value: Any) -> dict[str, Any]:
    match name:
        case "format" if value == "json_object":
            return {"guided_decoding_guide_type": "json"}
        case "format":
            ((kind, guide),) = value.items()
            text = guide if isinstance(guide, str) else json.dumps(guide)
            return {"guided_decoding_guide_type": _GUIDES[kind], "guided_decoding_guide": text}
        case "deadline_s":
            return {"timeout": int(value * 1e6)}
        case "priority":
            return {"priority": 11 - value}
        case "logit_bias" | "tools":
            return {name: json.dumps(value)}
    return {name: value}


def _oip_answer(responses: list[oip.ModelInferResponse]) -> Answer:
    found: dict[str, list[Any]] = {}
    for response in responses:
        for place, each in enumerate(response.outputs):
            fields = each.contents.ListFields()
            found.setdefault(each.name, []).extend(fields[0][1] if fields else ())
            assert not response.raw_output_contents or place < len(response.raw_output_contents)
    if not found.get("finish_reason"):  # raw outputs
        return Answer(raw=responses)
    return Answer(
        text=b"".join(found["text_output"]).decode(),
        finish=found["finish_reason"][0].decode(),
        num_tokens=found["num_output_tokens"][0],
        prompt_tokens=found["num_input_tokens"][0],
        cached_tokens=found["num_cached_tokens"][0],
        request_id=responses[0].parameters["request_id"].string_param,
        logprobs=tuple(len(json.loads(each)["top"]) for each in found.get("logprobs", ())),
        token_ids=tuple(found["output_ids"]),
        raw=responses,
    )
