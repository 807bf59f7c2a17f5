"""A completion of raw prompts as the internal calls, one per choice."""

from __future__ import annotations

from coordinator.calls import GenerateCall, RawPrompt
from coordinator.openai.asked import Asked
from coordinator.openai.completion_answer import CompletionAnswer
from coordinator.openai.errors import BadRequestError
from coordinator.openai.params import completion_param
from coordinator.openai.schema import MAX_CHOICES, CompletionRequest
from coordinator.openai.token_texts import TokenTexts
from coordinator.openai.wishes import (
    check_stream,
    choices_of,
    name_of,
    numbered,
    to_format,
    to_sampling,
    to_scope,
    to_stop,
)

_MAX_TOKENS = 16  # OpenAI's default


def to_asked(request: CompletionRequest, texts: TokenTexts) -> Asked:
    """Raises BadRequestError for what no internal call could say."""
    check_stream(request)
    num_choices = request.n or 1
    prompts = _to_prompts(request)
    _check_number(request, num_choices, len(prompts))
    calls = [call for prompt in prompts for call in choices_of(_to_call(request, prompt), num_choices)]
    name = name_of(request)
    return Asked(
        name=name,
        calls=numbered(calls, name),
        num_per_prompt=num_choices,
        answer=CompletionAnswer(len(calls), None if request.logprobs is None else texts),
        param=completion_param,
        is_stream=bool(request.stream),
        stream_options=request.stream_options,
    )


def _to_call(request: CompletionRequest, prompt: RawPrompt) -> GenerateCall:
    max_tokens = _MAX_TOKENS if request.max_tokens is None else request.max_tokens
    return GenerateCall(
        prompt=prompt,
        model=request.model or "",
        sampling=to_sampling(request, max_tokens, request.logprobs),
        stop=to_stop(request),
        tenant=request.tenant or "",
        priority=request.priority or 0,
        deadline_s=request.timeout,
        cache_scope=to_scope(request),
        cache_salt=request.cache_salt or "",
        format=to_format(request.response_format),
    )


def _to_prompts(request: CompletionRequest) -> list[RawPrompt]:
    """A list of numbers is one prompt's tokens, any other list one of prompts."""
    prompt = request.prompt
    if isinstance(prompt, str):
        return [RawPrompt(text=prompt)]
    whole = [each for each in prompt if isinstance(each, int)]
    if whole:
        return [RawPrompt(token_ids=tuple(whole))]
    return [
        RawPrompt(text=each) if isinstance(each, str) else RawPrompt(token_ids=tuple(each))
        for each in prompt
        if not isinstance(each, int)
    ]


def _check_number(request: CompletionRequest, num_choices: int, num_prompts: int) -> None:
    if not num_prompts:
        raise BadRequestError("prompt: at least one is needed", param="prompt", code="invalid_value")
    if num_prompts * num_choices > MAX_CHOICES:
        raise BadRequestError(
            f"prompt: {num_prompts} prompts with {num_choices} choices each, limit {MAX_CHOICES} in all",
            param="prompt",
            code="invalid_value",
        )
    if request.best_of is not None and request.best_of != num_choices:
        raise BadRequestError(
            "best_of: all choices are returned; others than n are not supported",
            param="best_of",
            code="unsupported_parameter",
        )
