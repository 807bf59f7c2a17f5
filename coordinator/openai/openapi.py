"""The OpenAPI document of the HTTP door, made of the schemas that bodies are checked by."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from coordinator.openai.chat_schema import ChatRequest
from coordinator.openai.schema import CompletionRequest

_ERRORS = {
    "400": "A field is wrong, unknown or not supported; the error names it.",
    "401": "An API key is needed.",
    "403": "Not allowed to this caller.",
    "404": "No such model, or no such page.",
    "408": "The body did not come.",
    "409": "A request of this id is running.",
    "413": "The body is too large.",
    "415": "The body is not application/json.",
    "421": "Without API keys: by a name that the door is not known as.",
    "429": "Too many requests wait; see Retry-After.",
    "431": "The request's head is too large.",
    "500": "A stage failed.",
    "503": "A stage is missing; see Retry-After where it is said.",
    "504": "The request's timeout passed.",
}
_ANSWER = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices", "usage"],
    "properties": {
        "id": {"type": "string"},
        "object": {"type": "string"},
        "created": {"type": "integer"},
        "model": {"type": "string"},
        "choices": {"type": "array", "items": {"type": "object"}},
        "usage": {"type": "object"},
    },
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def make_document(version: str) -> dict[str, Any]:
    _, schemas = models_json_schema(
        [(ChatRequest, "validation"), (CompletionRequest, "validation")],
        ref_template="#/components/schemas/{model}",
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "ElasticMM", "version": version},
        "paths": {
            "/v1/chat/completions": {"post": _generation("ChatRequest", "Answers a chat.")},
            "/v1/completions": {"post": _generation("CompletionRequest", "Goes on with raw prompts.")},
            "/v1/models": {"get": _page("The model served.", "401", "403", "421")},
            "/v1/models/{model}": {
                "get": _page("The model of this name.", "401", "403", "404", "421") | {"parameters": [_MODEL]}
            },
            "/health": {"get": _page("Whether this process answers.")},
            "/ready": {"get": _page("Whether every stage has an instance.", "503")},
            "/version": {"get": _page("The server's version.", "421")},
        },
        "components": {"schemas": schemas["$defs"] | {"Answer": _ANSWER, "Error": _ERROR}},
    }


_MODEL = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}


def _generation(schema: str, summary: str) -> dict[str, Any]:
    answers = {
        "application/json": {"schema": {"$ref": "#/components/schemas/Answer"}},
        "text/event-stream": {"schema": {"type": "string"}},
    }
    body = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": body},
        "responses": {"200": {"description": "The answer, or its stream.", "content": answers}}
        | _errors(*_ERRORS),
    }


def _page(summary: str, *statuses: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "summary": summary,
        "responses": {"200": {"description": summary, "content": content}} | _errors(*statuses),
    }


def _errors(*statuses: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {status: {"description": _ERRORS[status], "content": content} for status in statuses}
