"""The two OpenAI doors: bodies from asks, answers from what comes back."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx

from tests.integration.parameters.asks import Answer, Ask

TIMEOUT_S = 120.0
_CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 504: "DEADLINE_EXCEEDED"}
_RENAMED = {"deadline_s": "timeout"}


class HttpDoor:
    """POSTs bodies; `to_body` makes them of asks."""

    def __init__(self, url: str, path: str, to_body: Callable[[Ask], dict[str, Any]]) -> None:
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_S)
        self._path = path
        self._to_body = to_body

    def sent(self, ask: Ask) -> dict[str, Any]:
        return self._to_body(ask)

    def ask(self, ask: Ask) -> Answer:
        body = self.sent(ask)
        reply = self._client.post(self._path, json=body)
        if reply.status_code != 200:
            error = reply.json()["error"]
            return Answer(error=_CODES[reply.status_code], named=error["param"] or "", raw=error)
        if body.get("stream"):
            return _streamed(reply.text)
        whole = reply.json()
        return _answer(whole, whole["choices"][0], whole["usage"])

    def close(self) -> None:
        self._client.close()


def chat_body(ask: Ask) -> dict[str, Any]:
    body = _common(ask)
    if (num_top := body.pop("logprobs", None)) is not None:
        body |= {"logprobs": True, "top_logprobs": num_top}
    return {"messages": to_messages(ask.messages)} | body | dict(ask.own)


def completion_body(ask: Ask, render: Callable[[Any], str]) -> dict[str, Any]:
    body = _common(ask)
    prompt = body.pop("prompt", None)
    return {"prompt": render(ask.messages) if prompt is None else prompt} | body | dict(ask.own)


def to_messages(messages: Any) -> list[dict[str, Any]]:
    """Pictures as data: URLs."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return [
        message | {"content": [_part(part) for part in message["content"]]}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def data_url(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def _part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] != "image":
        return part
    image_url = {"url": data_url(part["image"])} | {k: part[k] for k in ("detail",) if k in part}
    return {"type": "image_url", "image_url": image_url}


def _common(ask: Ask) -> dict[str, Any]:
    body = {"temperature": 0} | {_RENAMED.get(name, name): value for name, value in ask.options.items()}
    if "logit_bias" in body:
        body["logit_bias"] = {str(token): bias for token, bias in body["logit_bias"].items()}
    if (form := body.pop("format", None)) is not None:
        body["response_format"] = _format(form)
    return body


def _format(form: Any) -> dict[str, Any]:
    if form == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "form", "schema": form["json_schema"]}}


def _answer(whole: dict[str, Any], choice: dict[str, Any], usage: dict[str, Any]) -> Answer:
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    return Answer(
        text=text or "",
        finish=choice["finish_reason"],
        num_tokens=usage["completion_tokens"],
        prompt_tokens=usage["prompt_tokens"],
        cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
        request_id=whole["id"].partition("-")[2],
        logprobs=_logprobs(choice.get("logprobs")),
        raw=whole,
    )


def _logprobs(found: dict[str, Any] | None) -> tuple[int, ...]:
    if found is None:
        return ()
    if "content" in found:
        return tuple(len(each["top_logprobs"]) for each in found["content"])
    return tuple(len(each) for each in found["top_logprobs"])


def _streamed(events: str) -> Answer:
    """`raw` has every chunk."""
    lines = [line.removeprefix("data: ") for line in events.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    texts = [choice["delta"].get("content") if "delta" in choice else choice["text"] for choice in choices]
    finish = next(choice["finish_reason"] for choice in choices if choice["finish_reason"])
    return Answer(text="".join(text or "" for text in texts), finish=finish, raw=chunks)
