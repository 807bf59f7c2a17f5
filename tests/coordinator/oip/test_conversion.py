"""Every option reaches the call, from each place where it may stand; what is wrong is refused by its name."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from coordinator.calls import ChatMessage, ChatPart, GenerateCall, ImageSource, RawPrompt, Tool, ToolCall
from coordinator.errors import InvalidFieldError, NotFoundError
from coordinator.oip.conversion import to_asked
from coordinator.oip.naming import with_client_names
from coordinator.oip.options import OPTIONS
from core.cache.scope import CacheScope
from core.output_format import FormatKind, OutputFormat
from elasticmm.oip import open_inference_pb2 as pb
from tests.coordinator.conftest import picture
from tests.coordinator.oip.conftest import add_input, infer_request, refused

Read = Callable[[GenerateCall], object]

# By option: a value, and where the call has it.
REACHED: dict[str, tuple[object, object, Read]] = {
    "max_tokens": (5, 5, lambda call: call.sampling.max_tokens),
    "temperature": (0.5, 0.5, lambda call: call.sampling.temperature),
    "top_p": (0.25, 0.25, lambda call: call.sampling.top_p),
    "top_k": (0, 0, lambda call: call.sampling.top_k),
    "min_p": (0.5, 0.5, lambda call: call.sampling.min_p),
    "presence_penalty": (-1.5, -1.5, lambda call: call.sampling.presence_penalty),
    "frequency_penalty": (1.5, 1.5, lambda call: call.sampling.frequency_penalty),
    "repetition_penalty": (1.25, 1.25, lambda call: call.sampling.repetition_penalty),
    "seed": (0, 0, lambda call: call.sampling.seed),
    "random_seed": (9, 9, lambda call: call.sampling.seed),
    "logprobs": (2, 2, lambda call: call.sampling.logprobs),
    "logit_bias": ('{"7": -1, "5": 0.5}', ((5, 0.5), (7, -1.0)), lambda call: call.sampling.logit_bias),
    "return_log_probs": (True, 0, lambda call: call.sampling.logprobs),
    "stop": (["a", "b"], ("a", "b"), lambda call: call.stop.strings),
    "stop_words": (["a"], ("a",), lambda call: call.stop.strings),
    "stop_token_ids": ([3, 4], (3, 4), lambda call: call.stop.token_ids),
    "ignore_eos": (True, True, lambda call: call.stop.ignore_eos),
    "request_id": ("r", "r", lambda call: call.request_id),
    "tenant": ("t", "t", lambda call: call.tenant),
    "cache_scope": ("none", CacheScope.NONE, lambda call: call.cache_scope),
    "cache_salt": ("s", "s", lambda call: call.cache_salt),
    "timeout": (1_500_000, 1.5, lambda call: call.deadline_s),
    "priority": (1, 10, lambda call: call.priority),
    "tools": (
        '[{"type": "function", "function": {"name": "f", "parameters": {"a": 1}}}]',
        (Tool("f", "", '{"a": 1}'),),
        lambda call: call.tools,
    ),
}

# Each of these needs the other.
FORMAT = {"guided_decoding_guide_type", "guided_decoding_guide"}

# Those that say how the answer looks, not what it is.
ANSWERS = {
    "stream",
    "exclude_input_in_output",
    "return_finish_reason",
    "return_num_input_tokens",
    "return_num_output_tokens",
    "binary_data_output",
    "triton_enable_empty_final_response",
}


def test_every_option_is_here() -> None:
    assert REACHED.keys() | FORMAT | ANSWERS == OPTIONS.keys()


@pytest.mark.parametrize("name", REACHED)
def test_as_input(name: str) -> None:
    value, reached, read = REACHED[name]
    request = infer_request()
    elements = value if isinstance(value, list) else [value]
    coded = [each.encode() if isinstance(each, str) else each for each in elements]
    add_input(request, name, OPTIONS[name].datatype, coded)
    assert read(to_asked(request).call) == reached


@pytest.mark.parametrize(
    "name", [name for name, (value, _, _) in REACHED.items() if not isinstance(value, list)]
)
@pytest.mark.parametrize("kind", [lambda value: value, str])
def test_as_parameter(name: str, kind: Callable[[object], object]) -> None:
    value, reached, read = REACHED[name]
    assert read(to_asked(infer_request(**{name: kind(value)})).call) == reached


@pytest.mark.parametrize("name", REACHED)
def test_as_json(name: str) -> None:
    value, reached, read = REACHED[name]
    request = infer_request(sampling_parameters=json.dumps({name: value}))
    assert read(to_asked(request).call) == reached


def test_nothing_is_no_opinion() -> None:
    assert to_asked(infer_request("hi")).call == GenerateCall(
        (ChatMessage("user", (ChatPart(text="hi"),)),), size_bytes=infer_request("hi").ByteSize()
    )
    given = infer_request("hi", sampling_parameters='{"seed": null}')
    assert to_asked(given).call.sampling.seed is None


FORMATS = [
    ("json", "", FormatKind.JSON_OBJECT),
    ("json_schema", "{}", FormatKind.JSON_SCHEMA),
    ("regex", "a+", FormatKind.REGEX),
    ("lark_grammar", 'start: "a"', FormatKind.GRAMMAR),
]


@pytest.mark.parametrize(("kind", "guide", "wanted"), FORMATS)
def test_formats(kind: str, guide: str, wanted: FormatKind) -> None:
    options = {"guided_decoding_guide_type": kind} | ({"guided_decoding_guide": guide} if guide else {})
    assert to_asked(infer_request(**options)).call.format == OutputFormat(wanted, guide)


def test_biases_in_json() -> None:
    request = infer_request(sampling_parameters='{"logit_bias": {"3": 2}}')
    assert to_asked(request).call.sampling.logit_bias == ((3, 2.0),)


def test_raw_prompts() -> None:
    request = infer_request(None)
    add_input(request, "prompt", "BYTES", [b"Once"])
    call = to_asked(request).call
    assert (call.messages, call.prompt) == ((), RawPrompt(text="Once"))
    request = infer_request(None)
    add_input(request, "input_ids", "INT32", [5, 6], [1, 2])
    assert to_asked(request).call.prompt == RawPrompt(token_ids=(5, 6))


def test_pictures() -> None:
    data = picture()
    request = infer_request("what?", images=[data, base64.b64encode(data), b"https://a.test/b.png"])
    assert [part.image for part in to_asked(request).call.messages[0].parts] == [
        ImageSource(data=data),
        ImageSource(data=data),
        ImageSource(url="https://a.test/b.png"),
        None,
    ]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_picture_files_arrive_as_they_are(kind: str) -> None:
    data = picture(kind)
    parts = to_asked(infer_request(images=[data])).call.messages[0].parts
    assert parts[0].image == ImageSource(data=data)


def test_messages() -> None:
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image"},
        {"type": "image_url", "image_url": {"url": "data:x"}},
    ]
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": parts}]
    call = to_asked(infer_request(None, messages=messages, images=[b"\x89P"])).call
    assert call.messages == (
        ChatMessage("system", (ChatPart(text="be brief"),)),
        ChatMessage(
            "user",
            (
                ChatPart(text="a"),
                ChatPart(image=ImageSource(data=b"\x89P")),
                ChatPart(image=ImageSource(url="data:x")),
            ),
        ),
    )


def test_outputs() -> None:
    assert to_asked(infer_request()).outputs == ("text_output",)
    assert to_asked(infer_request(outputs=["seed"])).outputs == ("seed",)
    adding = infer_request(logprobs=1, return_finish_reason=True, return_num_input_tokens=False)
    assert to_asked(adding).outputs == ("text_output", "logprobs", "finish_reason")
    assert to_asked(infer_request(outputs=["logprobs"])).call.sampling.logprobs == 0


def with_input(
    name: str, datatype: str, values: list[object], shape: list[int] | None = None
) -> pb.ModelInferRequest:
    request = infer_request()
    add_input(request, name, datatype, values, shape)
    return request


def raw(ids: list[int], **fields: Any) -> pb.ModelInferRequest:
    request = infer_request(None, **fields)
    add_input(request, "input_ids", "INT32", ids)
    return request


def with_json(text: str) -> pb.ModelInferRequest:
    return infer_request(sampling_parameters=text)


def user(content: object, **more: object) -> pb.ModelInferRequest:
    return infer_request(None, messages=[{"role": "user", "content": content, **more}])


def without_value() -> pb.ModelInferRequest:
    request = infer_request()
    request.parameters["seed"].SetInParent()
    return request


def with_output_parameter() -> pb.ModelInferRequest:
    request = infer_request(outputs=["text_output"])
    request.outputs[0].parameters["classification"].int64_param = 3
    return request


REFUSED = {
    "no text": (infer_request(None), "text_input"),
    "text and messages": (infer_request(messages=[]), "messages"),
    "text and prompt": (with_input("prompt", "BYTES", [b"a"]), "prompt"),
    "text and ids": (with_input("input_ids", "INT32", [1]), "input_ids"),
    "negative ids": (raw([-1]), "input_ids"),
    "ids and picture": (raw([1], images=[b"\xff"]), "image"),
    "echo of ids": (raw([1], exclude_input_in_output=False), "exclude_input_in_output"),
    "guide alone": (infer_request(guided_decoding_guide="a"), "guided_decoding_guide_type"),
    "no guide": (infer_request(guided_decoding_guide_type="regex"), "guided_decoding_guide"),
    "kind of guide": (infer_request(guided_decoding_guide_type="ebnf_grammar"), "guided_decoding_guide_type"),
    "biases": (infer_request(logit_bias="[]"), "logit_bias"),
    "bias of no token": (infer_request(logit_bias='{"a": 1}'), "logit_bias"),
    "bias twice": (infer_request(logit_bias='{"1": 1, "01": 1}'), "logit_bias"),
    "no bias": (infer_request(logit_bias='{"1": null}'), "logit_bias"),
    "two texts": (with_input("text_input", "BYTES", [b"again"]), "text_input"),
    "text in numbers": (with_input("image", "INT32", [1]), "image"),
    "texts": (with_input("messages", "BYTES", [b"[]", b"[]"]), "messages"),
    "bad text": (with_input("tenant", "BYTES", [b"\xff"]), "tenant"),
    "unknown input": (with_input("beam_width", "INT32", [1]), "beam_width"),
    "long input": (with_input("x" * 100, "INT32", [1]), "x" * 80 + "…"),
    "unknown parameter": (infer_request(beam_width=2), "beam_width"),
    "level of priority": (infer_request(priority=22), "priority"),
    "no tools": (infer_request(tools="{}"), "tools"),
    "tool of another type": (infer_request(tools='[{"type": "search"}]'), "tools[0].type"),
    "nameless tool": (infer_request(tools='[{"function": {}}]'), "tools[0].function.name"),
    "calls": (
        infer_request(None, messages=[{"role": "assistant", "tool_calls": {}}]),
        "messages[0].tool_calls",
    ),
    "sequence": (infer_request(sequence_id=1), "sequence_id"),
    "unknown entry": (with_json('{"beam_width": 2}'), "beam_width"),
    "unknown output": (infer_request(outputs=["logits"]), "logits"),
    "output parameter": (with_output_parameter(), "text_output.classification"),
    "no value": (without_value(), "seed"),
    "twice": (infer_request(seed=1, random_seed=1), "seed"),
    "twice, once in JSON": (infer_request(seed=1, sampling_parameters='{"seed": 1}'), "seed"),
    "float for int": (with_input("max_tokens", "FP32", [1.0]), "max_tokens"),
    "float parameter": (infer_request(max_tokens=1.5), "max_tokens"),
    "flag for int": (infer_request(max_tokens=True), "max_tokens"),
    "text for int": (infer_request(max_tokens="many"), "max_tokens"),
    "negative": (infer_request(top_k=-1), "top_k"),
    "past 32 bits": (infer_request(max_tokens=2**32), "max_tokens"),
    "past 64 bits": (with_json(f'{{"seed": {2**64}}}'), "seed"),
    "many digits": (with_json('{"seed": 1' + "0" * 4000 + "}"), "seed"),
    "infinite": (infer_request(temperature=float("inf")), "temperature"),
    "past floats": (with_json('{"temperature": 1' + "0" * 400 + "}"), "temperature"),
    "int for flag": (infer_request(ignore_eos=1), "ignore_eos"),
    "number for text": (infer_request(tenant=1), "tenant"),
    "two values": (with_input("seed", "UINT64", [1, 2]), "seed"),
    "negative id": (with_input("stop_token_ids", "INT32", [-1]), "stop_token_ids"),
    "scope": (infer_request(cache_scope="all"), "cache_scope"),
    "timeout": (infer_request(timeout=0), "timeout"),
    "no JSON": (with_json("{"), "sampling_parameters"),
    "no object": (with_json("[]"), "sampling_parameters"),
    "same key twice": (with_json('{"seed": 1, "seed": 2}'), "sampling_parameters"),
    "key without UTF-8": (with_json('{"\\ud800": 1}'), "sampling_parameters"),
    "text without UTF-8": (with_json('{"stop": "\\ud800"}'), "stop"),
    "deep JSON": (with_json("[" * 100_000), "sampling_parameters"),
    "echo of messages": (
        infer_request(None, messages=[{"role": "user", "content": "a"}], exclude_input_in_output=False),
        "exclude_input_in_output",
    ),
    "messages": (infer_request(None, messages={}), "messages"),
    "message": (infer_request(None, messages=["a"]), "messages[0]"),
    "no role": (infer_request(None, messages=[{"content": "a"}]), "messages[0].role"),
    "no content": (infer_request(None, messages=[{"role": "user"}]), "messages[0].content"),
    "message key": (user("a", name="b"), "messages[0].name"),
    "part": (user(["a"]), "messages[0].content[0]"),
    "part type": (user([{"type": "audio"}]), "messages[0].content[0].type"),
    "text part": (user([{"type": "text"}]), "messages[0].content[0].text"),
    "part key": (user([{"type": "image", "text": "a"}]), "messages[0].content[0].text"),
    "detail": (
        user([{"type": "image_url", "image_url": {"url": "data:", "detail": "middle"}}]),
        "messages[0].content[0].image_url.detail",
    ),
    "no image": (user([{"type": "image"}]), "messages[0].content[0]"),
    "image left": (infer_request(None, messages=[], images=[b"\xff"]), "image"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    request, field = REFUSED[case]
    error = refused(request)
    assert (type(error), error.field) == (InvalidFieldError, field)


def test_version() -> None:
    request = infer_request()
    request.model_version = "1"
    assert to_asked(request).outputs
    request.model_version = "2"
    assert isinstance(refused(request), NotFoundError)


def test_calls_of_tools_and_their_answers() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "x", "tool_call_id": "c"},
    ]
    first, second = to_asked(infer_request(None, messages=messages)).call.messages
    assert (first.parts, first.tool_calls) == ((), (ToolCall("c", "f", "{}"),))
    assert second.tool_call_id == "c"


@pytest.mark.parametrize(("level", "priority"), [(0, 0), (11, 0), (21, -10)])
def test_levels_of_priority_count_the_other_way_round(level: int, priority: int) -> None:
    assert to_asked(infer_request(priority=level)).call.priority == priority


def test_detail_of_pictures_in_messages() -> None:
    parts = [
        {"type": "image", "detail": "low"},
        {"type": "image_url", "image_url": {"url": "data:", "detail": "low"}},
        {"type": "image", "detail": "high"},
    ]
    request = infer_request(None, messages=[{"role": "user", "content": parts}], images=[b"\xff", b"\xfe"])
    asked = to_asked(request)
    (message,) = asked.call.messages
    assert [part.image and part.image.max_pixels for part in message.parts] == [512 * 512, 512 * 512, None]
    failure = with_client_names(InvalidFieldError("messages[0].parts[0].image", "is broken"), asked.renamed)
    assert str(failure) == "image[0]: is broken"
