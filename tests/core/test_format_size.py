"""Sizes of formats, never underestimated."""

from __future__ import annotations

import json

import pytest

from core.format_size import written_out
from core.output_format import FormatKind, OutputFormat


def size(kind: str, text: str) -> int:
    return written_out(OutputFormat(FormatKind(kind), text))


@pytest.mark.parametrize(
    ("expression", "letters"),
    [
        ("abc", 3),
        ("a{5}", 5),
        ("a{2,5}b", 6),
        ("(ab){3}c{2}", 8),
        ("(a{99}){99}{99}", 99**3),
        ("((a{9}|b)*{3})+{2}", 60),
        (r"\d{4}-\p{Lu}{2}\{3}", 10),
        ("[]{5}x{7}", 12),
        ("[^x{9}]{3}", 3),
        ("a{ 5 } {2}", 10),
        ("(?x)(a{9}) # b\n{9}", 82),
        ("x{99999999999999999999}", 10**9),
        ("(a", 1),
        (")a{3}", 3),
    ],
)
def test_expressions(expression: str, letters: int) -> None:
    assert size("regex", expression) == letters


def test_schemas_have_patterns_anywhere() -> None:
    schema = {
        "anyOf": [{"pattern": "a{30}"}, {"patternProperties": {"b{40}": {"pattern": 5}}}],
        "pattern": "c",
    }
    assert size("json_schema", json.dumps(schema)) == 71
    assert size("json_schema", "no JSON") == size("json_object", "") == 0


@pytest.mark.parametrize(
    ("grammar", "letters"),
    [
        ('start: "abc"', 3),
        ("start: /a{9}/{2}", 18),
        ('start: A\nA: B{3} | "x"\nB: ("a" ["b"]){5}', 31 + 31 + 10),
        ("start: A\nA: A{7}", 56),
        ('start: A\nA.2: "a"~2..6', 12),
        ('start: x\nx: %json {"pattern": "a{50}"}', 63),
    ],
)
def test_grammars(grammar: str, letters: int) -> None:
    assert size("grammar", grammar) == letters


def test_terminals_that_double_each_other() -> None:
    doubling = "\n".join(f"T{i}: T{i - 1} T{i - 1}" for i in range(1, 60))
    assert size("grammar", f'start: T59\nT0: "a"\n{doubling}') >= 10**9


def test_a_chain_without_end_is_large() -> None:
    chain = "\n".join(f"T{i}: T{i + 1}" for i in range(3000))
    assert size("grammar", f"start: T0\n{chain}") == 10**9


@pytest.mark.parametrize("piece", ['"', "[", "\\p{", "\n", '\\"', "A: A\n"])
def test_time_is_linear(piece: str) -> None:
    """Looked at from each letter to the end, such a text would take longer than any test may."""
    text = "x" + piece * (200_000 // len(piece))
    assert size("regex", text) + size("grammar", text)
