"""The model's chat template, rendered by a sandboxed Jinja as the model's authors meant it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

# A conversation as templates know it: role, and content as a string or a list of parts.
TemplateMessage = Mapping[str, Any]

_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# What a template's expressions raise over values that it did not think of.
_FAILURES = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
_PROBE = "probe of the content's form"


class TemplateError(ValueError):
    """The template refuses the conversation, or is broken."""


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}` marks answers for training; here it is its content."""

    tags = {"generation"}  # noqa: RUF012 (the base class has it so)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        self._template = _environment().from_string(source)
        self._tokens = dict(tokens)
        self.takes_parts = self._probe_parts()

    def render(self, messages: Sequence[TemplateMessage], tools: Sequence[Any] | None = None) -> str:
        """The prompt's text, up to where the answer begins. Raises TemplateError."""
        try:
            return self._template.render(
                messages=messages, tools=tools, add_generation_prompt=True, **self._tokens
            )
        except (*_FAILURES, jinja2.TemplateError) as error:
            raise TemplateError(str(error)) from error

    def _probe_parts(self) -> bool:
        """Whether content may be a list of parts; text-only templates take strings alone."""
        message = {"role": "user", "content": [{"type": "text", "text": _PROBE}]}
        try:
            text = self.render([message])
        except TemplateError:
            return False
        return _PROBE in text and "'type'" not in text


def load_template(folder: Path) -> ChatTemplate:
    """From chat_template.jinja, or tokenizer_config.json. Raises ValueError naming what is missing."""
    config = _read_config(folder)
    named = folder / "chat_template.jinja"
    source = named.read_text() if named.is_file() else _default_of(config.get("chat_template"))
    if not source:
        raise ValueError(f"{folder}: has no chat_template.jinja, and tokenizer_config.json no chat_template")
    tokens = {name: _content_of(config[name]) for name in _TOKEN_NAMES if config.get(name) is not None}
    try:
        return ChatTemplate(source, tokens)
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"{folder}: chat template: {error}") from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    return dict(config)


def _default_of(chat_template: object) -> str | None:
    """Some configs list several named templates; the one called "default" is meant."""
    if isinstance(chat_template, list):
        named = {entry["name"]: entry["template"] for entry in chat_template}
        return named.get("default")
    return chat_template if isinstance(chat_template, str) else None


def _content_of(token: str | Mapping[str, str]) -> str:
    return token if isinstance(token, str) else token["content"]


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _GenerationTag]
    )
    environment.filters["tojson"] = _to_json
    functions: dict[str, Callable[..., Any]] = {"raise_exception": _raise, "strftime_now": _strftime_now}
    environment.globals.update(functions)
    return environment


def _to_json(value: Any, **options: Any) -> str:
    """Without the HTML escapes of Jinja's own filter."""
    return json.dumps(value, ensure_ascii=options.pop("ensure_ascii", False), **options)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
