"""Requests over HTTP, as clients of OpenAI's API send them."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx

from cli.load.sending import Answered
from cli.load.workload import PlannedRequest
from elasticmm_client import DeadlineExceeded, ElasticMMError, NotRunning, Unavailable


class HttpAsker:
    """Implements Asker. The client has base URL, key and timeout, and is the caller's.

    server_name: in the server's certificate; None: what it is reached by.
    """

    def __init__(self, client: httpx.AsyncClient, server_name: str | None = None) -> None:
        self._client = client
        self._extensions = {"sni_hostname": server_name} if server_name else {}
        self._model = ""

    async def connect(self) -> None:
        try:
            reply = await self._client.get("/v1/models", extensions=self._extensions)
            _check(reply, reply.text)
        except httpx.HTTPError as error:
            raise _error_of(error) from error
        self._model = reply.json()["data"][0]["id"]

    async def ask(self, request: PlannedRequest) -> Answered:
        reading = _Reading(time.monotonic())
        try:
            async with self._client.stream(
                "POST", "/v1/chat/completions", json=self._body(request), extensions=self._extensions
            ) as reply:
                if reply.is_error:
                    _check(reply, (await reply.aread()).decode(errors="replace"))
                async for event in _events(reply):
                    reading.take(event, time.monotonic())
        except httpx.HTTPError as error:
            raise _error_of(error) from error
        return reading.answered()

    def _body(self, request: PlannedRequest) -> dict[str, Any]:
        pictures = [
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{_base64(each)}"}}
            for each in request.images
        ]
        return {
            "model": self._model,
            "messages": [{"role": "user", "content": [*pictures, {"type": "text", "text": request.text}]}],
            "max_completion_tokens": request.output_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }


class _Reading:
    """An answer as its events come; each says how many tokens there are by then."""

    def __init__(self, start_s: float) -> None:
        self._start_s = start_s
        self._first_at_s: float | None = None
        self._last_at_s = start_s
        self._num_first = 0
        self._usage: dict[str, Any] = {}

    def take(self, event: dict[str, Any], now_s: float) -> None:
        """Raises ElasticMMError where the event is an error."""
        if (error := event.get("error")) is not None:
            raise ElasticMMError(error["message"], code=str(error.get("type") or error.get("code")))
        before = self._usage.get("completion_tokens", 0)
        self._usage = event["usage"]
        tokens = self._usage["completion_tokens"]
        if tokens == before:
            return
        self._last_at_s = now_s
        if self._first_at_s is None:
            self._first_at_s, self._num_first = now_s, tokens

    def answered(self) -> Answered:
        tokens, cached = self._usage.get("completion_tokens", 0), self._usage.get("prompt_tokens_details", {})
        first_at_s, later = self._first_at_s, tokens - self._num_first
        is_long = first_at_s is not None and later > 0
        return Answered(
            ttft_s=None if first_at_s is None else first_at_s - self._start_s,
            tpot_s=(self._last_at_s - (first_at_s or 0.0)) / later if is_long else None,
            prompt_tokens=self._usage.get("prompt_tokens", 0),
            media_tokens=0,  # this API does not say
            cached_tokens=cached.get("cached_tokens", 0),
            cached_media=cached.get("cached_media", 0),
            output_tokens=tokens,
        )


async def _events(reply: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in reply.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def _check(reply: httpx.Response, text: str) -> None:
    """Raises ElasticMMError with the status where it is an error."""
    if reply.is_error:
        raise ElasticMMError(_message_of(text), code=f"HTTP_{reply.status_code}")


def _message_of(text: str) -> str:
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text[:200]


def _error_of(error: httpx.HTTPError) -> ElasticMMError:
    if isinstance(error, httpx.TimeoutException):
        return DeadlineExceeded(str(error) or "timed out", code="DEADLINE_EXCEEDED")
    if isinstance(error, httpx.ConnectError):
        return NotRunning(str(error), code="UNAVAILABLE")
    return Unavailable(f"{type(error).__name__}: {error}", code="UNAVAILABLE")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
