"""A ModelInferRequest as the one call that every door makes."""

from __future__ import annotations

from coordinator.calls import GenerateCall, SamplingWish, StopWish
from coordinator.errors import InvalidFieldError, NotFoundError
from coordinator.oip.asked import OUTPUTS, TEXT_OUTPUT, AskedInference
from coordinator.oip.content import CONTENT_INPUTS, Content, checked_content, text_of, to_content
from coordinator.oip.formats import to_format
from coordinator.oip.naming import renamed_fields
from coordinator.oip.options import DEFAULT_PRIORITY_LEVEL, OPTIONS
from coordinator.oip.tensors import Tensor, to_tensors
from coordinator.oip.tools import TOOLS, to_tools
from coordinator.oip.values import shortened, to_text
from coordinator.oip.wishes import SAMPLING_PARAMETERS, Wishes
from core.cache.scope import CacheScope
from elasticmm.oip import open_inference_pb2 as pb

VERSION = "1"

# Options that add an output.
_ADDING = {
    "return_finish_reason": "finish_reason",
    "return_num_input_tokens": "num_input_tokens",
    "return_num_output_tokens": "num_output_tokens",
    "return_log_probs": "output_log_probs",
}


def to_asked(request: pb.ModelInferRequest) -> AskedInference:
    """Raises a FieldError with the name of the input, parameter or output at fault."""
    check_version(request.model_version)
    tensors, wishes = _to_wishes(request)
    outputs = _to_outputs(request, wishes)
    content = to_content(tensors)
    call = _to_call(request, content, wishes, outputs)
    return AskedInference(
        call=call,
        id=request.id,
        outputs=outputs,
        is_streamed=wishes.flag("stream"),
        is_raw=_is_raw(request, wishes),
        echo=_to_echo(content, wishes),
        renamed=renamed_fields(content, wishes, len(call.tools)),
    )


def check_version(version: str) -> None:
    if version not in ("", VERSION):
        raise NotFoundError("model_version", f"{shortened(version)!r} is not served here, {VERSION!r} is")


def _to_wishes(request: pb.ModelInferRequest) -> tuple[dict[str, Tensor], Wishes]:
    """The inputs that are no options, by name; and all options."""
    _check_names(request)
    contents, wishes = {}, Wishes()
    for tensor in to_tensors(request):
        if tensor.name in CONTENT_INPUTS:
            contents[tensor.name] = checked_content(tensor)
        else:
            wishes.add_tensor(tensor)
    if SAMPLING_PARAMETERS in contents:
        wishes.add_json(text_of(contents[SAMPLING_PARAMETERS]))
    for name in sorted(request.parameters):
        _add_parameter(wishes, name, request.parameters[name])
    return contents, wishes


def _add_parameter(wishes: Wishes, name: str, parameter: pb.InferParameter) -> None:
    if name == SAMPLING_PARAMETERS:
        wishes.add_json(to_text(name, parameter.string_param))
    else:
        wishes.add_parameter(name, parameter)


def _check_names(request: pb.ModelInferRequest) -> None:
    """Before any input's contents are looked at: what is said of these starts with the input's name."""
    seen = set()
    for each in request.inputs:
        if each.name not in CONTENT_INPUTS and each.name not in OPTIONS:
            raise InvalidFieldError(shortened(each.name), "is no input that is known here")
        if each.name in seen:
            raise InvalidFieldError(each.name, "is given twice")
        seen.add(each.name)


def _to_outputs(request: pb.ModelInferRequest, wishes: Wishes) -> tuple[str, ...]:
    """Those that are named, else the text; and those that options add."""
    for each in request.outputs:
        if each.name not in OUTPUTS:
            raise InvalidFieldError(shortened(each.name), "is no output that is known here")
        for key in sorted(each.parameters):
            raise InvalidFieldError(
                f"{each.name}.{shortened(key)}", "is no parameter of an output that is known here"
            )
    asked = {each.name for each in request.outputs} or {TEXT_OUTPUT}
    asked |= {output for option, output in _ADDING.items() if wishes.flag(option)}
    if wishes.has("logprobs"):
        asked.add("logprobs")
    return tuple(name for name in OUTPUTS if name in asked)


def _to_call(
    request: pb.ModelInferRequest,
    content: Content,
    wishes: Wishes,
    outputs: tuple[str, ...],
) -> GenerateCall:
    timeout_us = wishes.whole("timeout")
    return GenerateCall(
        messages=content.messages,
        request_id=wishes.text("request_id"),
        model=request.model_name,
        sampling=_to_sampling(wishes, outputs),
        stop=StopWish(wishes.texts("stop"), wishes.ids("stop_token_ids"), wishes.flag("ignore_eos")),
        tenant=wishes.text("tenant"),
        priority=_to_priority(wishes),
        deadline_s=None if timeout_us is None else timeout_us / 1e6,
        size_bytes=request.ByteSize(),
        cache_scope=_to_scope(wishes),
        cache_salt=wishes.text("cache_salt"),
        prompt=content.prompt,
        format=to_format(wishes),
        tools=to_tools(wishes.text(TOOLS)) if wishes.has(TOOLS) else (),
    )


def _to_sampling(wishes: Wishes, outputs: tuple[str, ...]) -> SamplingWish:
    """Outputs that tell log probabilities ask for them."""
    num_alternatives = wishes.whole("logprobs")
    if num_alternatives is None and not {"logprobs", "output_log_probs"}.isdisjoint(outputs):
        num_alternatives = 0
    return SamplingWish(
        max_tokens=wishes.whole("max_tokens"),
        temperature=wishes.number("temperature"),
        top_p=wishes.number("top_p"),
        top_k=wishes.whole("top_k"),
        min_p=wishes.number("min_p"),
        presence_penalty=wishes.number("presence_penalty"),
        frequency_penalty=wishes.number("frequency_penalty"),
        repetition_penalty=wishes.number("repetition_penalty"),
        seed=wishes.whole("seed"),
        logprobs=num_alternatives,
        logit_bias=wishes.biases("logit_bias"),
    )


def _to_priority(wishes: Wishes) -> int:
    """Levels count the other way round."""
    return DEFAULT_PRIORITY_LEVEL - (wishes.whole("priority") or DEFAULT_PRIORITY_LEVEL)


def _to_scope(wishes: Wishes) -> CacheScope | None:
    if not wishes.has("cache_scope"):
        return None
    try:
        return CacheScope(wishes.text("cache_scope"))
    except ValueError as error:
        known = ", ".join(scope.value for scope in CacheScope)
        raise InvalidFieldError("cache_scope", f"is none of {known}") from error


def _to_echo(content: Content, wishes: Wishes) -> str:
    """What goes before the answer where the client does not want the input left out."""
    if not wishes.has("exclude_input_in_output") or wishes.flag("exclude_input_in_output"):
        return ""
    if content.text is None:
        raise InvalidFieldError("exclude_input_in_output", f"must be true with {content.source}")
    return content.text


def _is_raw(request: pb.ModelInferRequest, wishes: Wishes) -> bool:
    """As asked for, else as the inputs are."""
    if wishes.has("binary_data_output"):
        return wishes.flag("binary_data_output")
    return bool(request.raw_input_contents)
