"""Options of `generate` that are files, or more than one value; what does not fit is wrong usage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.exits import USAGE, fail


def read_format(
    *, json_object: bool, json_schema: Path | None, regex: str | None, grammar: Path | None
) -> Any | None:
    """As the client's option `format`; None: none of them was given."""
    given: list[Any] = []
    if json_object:
        given.append("json_object")
    if json_schema is not None:
        content = _read(json_schema, "--json-schema")
        _parse(content, json_schema, "--json-schema")
        given.append({"json_schema": content})
    if regex is not None:
        given.append({"regex": regex})
    if grammar is not None:
        given.append({"grammar": _read(grammar, "--grammar")})
    if len(given) > 1:
        fail("--json-object, --json-schema, --regex, --grammar: only one of them at a time", USAGE)
    return next(iter(given), None)


def read_tools(path: Path | None) -> list[Any] | None:
    """A JSON list of functions, plain or as OpenAI's clients have them."""
    if path is None:
        return None
    tools = _parse(_read(path, "--tools"), path, "--tools")
    if not isinstance(tools, list):
        fail(f"--tools: {path} holds no list", USAGE)
    return tools


def read_biases(pairs: Sequence[str] | None) -> dict[int, float] | None:
    """Of TOKEN_ID=BIAS each."""
    return None if not pairs else dict(map(_bias, pairs))


def _bias(pair: str) -> tuple[int, float]:
    token, _, bias = pair.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        fail(f"--logit-bias: {pair!r} is not TOKEN_ID=BIAS", USAGE)


def _read(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        fail(f"{option}: {path} cannot be read: {error.strerror}", USAGE)
    except UnicodeDecodeError:
        fail(f"{option}: {path} is not UTF-8", USAGE)


def _parse(content: str, path: Path, option: str) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        fail(f"{option}: {path} is no JSON ({error})", USAGE)
