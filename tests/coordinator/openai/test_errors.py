"""What goes wrong behind the door, as clients read it."""

from __future__ import annotations

import pytest

from coordinator import errors
from coordinator.openai.params import chat_param, completion_param
from tests.coordinator.openai.conftest import error_of, events_of
from tests.coordinator.openai.scripted import Script

STATUSES = [
    (errors.InvalidFieldError("sampling.top_p", "bad"), 400, "invalid_request_error", "top_p"),
    (errors.NotFoundError("model", "not here"), 404, "invalid_request_error", "model"),
    (errors.TooLargeError("messages", "big"), 413, "invalid_request_error", "messages"),
    (errors.NotAllowedError("tenant", "no"), 403, "permission_error", "tenant"),
    (errors.UnauthenticatedError("who?"), 401, "authentication_error", None),
    (errors.AlreadyRunningError("request_id", "again"), 409, "invalid_request_error", "request_id"),
    (errors.OverloadedError("full", 1.5), 429, "rate_limit_error", None),
    (errors.UnavailableError("gone"), 503, "service_unavailable_error", None),
    (errors.DeadlinePassedError("late"), 504, "timeout_error", None),
    (errors.InternalFailureError("broken"), 500, "server_error", None),
    (RuntimeError("a mistake of ours"), 500, "server_error", None),
]


@pytest.mark.parametrize(("error", "status", "kind", "param"), STATUSES, ids=str)
@pytest.mark.parametrize("stream", [False, True])
async def test_statuses(error: Exception, status: int, kind: str, param: str | None, *, stream: bool) -> None:
    told = error_of(await Script(error=error, is_accepted=False).chat(stream=stream), status)
    assert (told["type"], told["param"]) == (kind, param)


@pytest.mark.parametrize(
    ("error", "wait_s"),
    [(errors.OverloadedError("full", 1.2), "2"), (errors.UnavailableError("x", 0.1), "1")],
)
async def test_when_to_come_back(error: Exception, wait_s: str) -> None:
    response = await Script(error=error, is_accepted=False).chat()
    assert response.headers["retry-after"] == wait_s


async def test_an_error_within_a_stream_ends_it() -> None:
    script = Script(error=errors.UnavailableError("an instance was lost"))
    *events, last = events_of(await script.chat(stream=True))
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == "an answer"
    assert last["error"]["type"] == "service_unavailable_error"


async def test_one_choice_that_is_refused_ends_all() -> None:
    script = Script(error=errors.OverloadedError("full", 1.0), is_accepted=False)
    error_of(await script.chat(n=4, stream=True), 429)
    assert len(script.calls) == 4


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ("messages[0].parts[1].image.url", "messages[0].content[1].image_url.url"),
        ("messages[0].parts[1].image", "messages[0].content[1].image_url.url"),
        ("messages[0].parts", "messages[0].content"),
        ("messages[2].tool_calls[1].arguments", "messages[2].tool_calls[1].function.arguments"),
        ("messages[2].tool_calls[1].id", "messages[2].tool_calls[1].id"),
        ("messages[2].tool_call_id", "messages[2].tool_call_id"),
        ("messages", "messages"),
        ("sampling.logprobs", "top_logprobs"),
        ("sampling.logit_bias[3]", "logit_bias[3]"),
        ("sampling.max_tokens", "max_tokens"),
        ("stop.strings[4]", "stop"),
        ("stop.token_ids[1]", "stop_token_ids[1]"),
        ("stop.ignore_eos", "ignore_eos"),
        ("format.json_schema", "response_format"),
        ("tools", "tools"),
        ("deadline", "timeout"),
    ],
)
def test_names_of_a_chat(field: str, param: str) -> None:
    assert chat_param(field) == param


def test_names_of_a_completion() -> None:
    assert completion_param("prompt.token_ids.ids[3]") == "prompt"
    assert completion_param("sampling.logprobs") == "logprobs"
