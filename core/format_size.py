"""How large a format gets when its counted repeats and named terminals are written out.

Compiling takes time in proportion to that, whatever the limits of the library say: 7 us for each letter of
`(a{99}){99}`. It is never underestimated; odd spellings may be taken for larger than they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from core.output_format import FormatKind, OutputFormat

# A class ends at its first bracket here, so that nothing outside of one is taken for its inside.
_EXPRESSION = re.compile(
    r"(?P<repeat>\{\s*\d*\s*(?:,\s*\d*\s*)?\})"
    r"|(?P<atom>\\[pPxuU]\{[^}]*\}?|\\.|\[(?:\\.|[^\]\\])*\]?)"
    r"|(?P<open>\()|(?P<close>\))|(?P<nothing>[\s|*+?])|(?P<other>.)",
    re.DOTALL,
)
_GRAMMAR = re.compile(
    r"(?P<repeat>\{\s*\d*\s*(?:,\s*\d*\s*)?\}|~\s*\d+(?:\s*\.\.\s*\d+)?)"
    r"|\"(?P<text>(?:\\.|[^\"\\])*)\"?|/(?P<expression>(?:\\.|[^/\\])*)/?|(?P<name>\w+)"
    r"|(?P<open>[(\[])|(?P<close>[)\]])|(?P<nothing>[\s|*+?])|(?P<other>.)",
    re.DOTALL,
)
_DEFINITION = re.compile(r"^[ \t]*[?!]*(\w+)(?:\.-?\d+|\[[^\]\n]*\])*[ \t]*:", re.MULTILINE)
_IS_VERBOSE = re.compile(r"\(\?[a-zA-Z-]*x")
_ENOUGH = 10**9  # sizes are not counted any further

Weigh = Callable[[re.Match[str]], int]


def written_out(form: OutputFormat) -> int:
    """Letters of all regular expressions and terminals of the format."""
    match form.kind:
        case FormatKind.JSON_OBJECT:
            return 0
        case FormatKind.REGEX:
            return _expression_size(form.text)
        case FormatKind.JSON_SCHEMA:
            return sum(map(_expression_size, _patterns(_parsed(form.text))))
        case FormatKind.GRAMMAR:
            return _grammar_size(form.text)


def _expression_size(text: str) -> int:
    if _IS_VERBOSE.search(text):
        text = re.sub(r"#.*", "", text)
    return _size(_EXPRESSION.finditer(text), lambda _: 1)


def _parsed(text: str) -> Any:
    """What is no JSON is refused by the compiler."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _count(digits: str) -> int:
    return int(digits) if len(digits) < 10 else _ENOUGH


def _patterns(schema: Any) -> Iterator[str]:
    """Every regular expression of a JSON schema."""
    if isinstance(schema, list):
        for each in schema:
            yield from _patterns(each)
    elif isinstance(schema, dict):
        for name, each in schema.items():
            if name == "pattern" and isinstance(each, str):
                yield each
            if name == "patternProperties" and isinstance(each, dict):
                yield from each
            yield from _patterns(each)


def _grammar_size(text: str) -> int:
    """Rules that are no terminals are not written out by the library; their names count as one."""
    starts = list(_DEFINITION.finditer(text))
    ends = [*(start.start() for start in starts[1:]), len(text)]
    bodies = [(start[1], text[start.end() : end]) for start, end in zip(starts, ends, strict=False)]
    definitions = {name: body for name, body in bodies if name.strip("_").isupper()}
    sizes: dict[str, int] = {}

    def weigh(token: re.Match[str]) -> int:
        if token["name"] is not None:
            return size_of(token["name"])
        return max(1, _expression_size(token["text"] or token["expression"] or ""))

    def size_of(name: str) -> int:
        """A terminal that is within itself, which is refused later, counts as one there."""
        if name not in sizes:
            sizes[name] = 1
            sizes[name] = _size(_GRAMMAR.finditer(definitions.get(name, "x")), weigh)
        return sizes[name]

    try:
        return min(_ENOUGH, sum(_size(_GRAMMAR.finditer(body), weigh) for _, body in bodies))
    except RecursionError:  # terminals within terminals, hundreds deep
        return _ENOUGH


def _size(tokens: Iterator[re.Match[str]], weigh: Weigh) -> int:
    """The sum of all atoms, each times the counts of the repeats around it."""
    sums, last = [0], 0
    for token in tokens:
        match token.lastgroup:
            case "open":
                sums.append(0)
                continue
            case "nothing":
                continue
            case "repeat":
                added = last * (max([1, *map(_count, re.findall(r"\d+", token[0]))]) - 1)
                last += added
            case "close":
                last = added = sums.pop() if len(sums) > 1 else 0
            case _:
                last = added = weigh(token)
        sums[-1] = min(_ENOUGH, sums[-1] + added)
    return min(_ENOUGH, sum(sums))
