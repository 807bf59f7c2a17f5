"""The rows of field_rows as a program in TypeScript: its names are the Python client's in camel case."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.clients.field_rows import Row

_KEPT = {"image_url"}  # is OpenAI's own name

_PROGRAM = """\
import {{ Client, type GenerateOptions, type Message }} from "{client}";
const rows: Record<string, [Message[], GenerateOptions]> = {rows};
const client = new Client(process.argv[2] ?? "");
for (const name of process.argv.slice(3)) await client.generate(...rows[name]!).result();
client.close();
"""


def program_of(rows: dict[str, Row], client: Path) -> str:
    """Asks a cluster as the rows that it is told of say; types are checked where it is compiled."""
    told = {name: [row.messages, row.options] for name, row in rows.items()}
    return _PROGRAM.format(client=client, rows=_literal(told, is_named=False))


def _literal(value: Any, *, is_named: bool = True) -> str:
    match value:
        case bytes():
            return f'Buffer.from("{b64encode(value).decode()}", "base64")'
        case bool() | str() | float() | None:
            return json.dumps(value)
        case int():
            return str(value) if abs(value) < 2**53 else f"{value}n"
        case dict():
            return "{ " + ", ".join(_pairs(value.items(), is_named)) + " }"
        case _:
            return "[" + ", ".join(map(_literal, value)) + "]"


def _pairs(items: Iterable[tuple[Any, Any]], is_named: bool) -> Iterable[str]:
    for name, value in items:
        yield f"{json.dumps(_camel(str(name)) if is_named else name)}: {_literal(value)}"


def _camel(name: str) -> str:
    return name if name in _KEPT else re.sub("_([a-z])", lambda found: found[1].upper(), name)
