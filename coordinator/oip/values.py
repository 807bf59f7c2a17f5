"""A client's values as options hold them: exact, or refused with the option's name."""

from __future__ import annotations

import json
import math

from coordinator.checks.counts import MAX_VALUES, check_count
from coordinator.errors import InvalidFieldError
from coordinator.oip.options import Kind, Option

Biases = tuple[tuple[int, float], ...]
Value = bool | int | float | str | tuple[str, ...] | tuple[int, ...] | Biases

_MAX_SHOWN = 80
_FLAGS = {"true": True, "false": False}


def to_value(name: str, option: Option, given: object) -> Value:
    """Numbers and flags may be written as text: some clients' parameters have no other type for them.

    A single text or number stands for a list of one. Raises InvalidFieldError.
    """
    match option.kind:
        case Kind.TEXTS:
            return tuple(to_text(name, each) for each in _to_list(given))
        case Kind.IDS:
            return tuple(_to_int(name, each, option.bounds) for each in _to_list(given))
        case Kind.BIASES:
            return _to_biases(name, given, option.bounds)
        case _:
            return _to_single(name, option, given)


def to_text(name: str, given: object) -> str:
    """Text that has a UTF-8 form, from bytes or text. Raises InvalidFieldError."""
    try:
        if isinstance(given, bytes):
            return given.decode()
        if isinstance(given, str):
            given.encode()
            return given
    except UnicodeError as error:
        raise InvalidFieldError(name, "is not UTF-8") from error
    raise InvalidFieldError(name, f"{_shown(given)} is no text")


def from_json(name: str, text: str) -> object:
    """Every key has a UTF-8 form. Raises InvalidFieldError where it is no JSON, or too much of it."""
    check_count(name, text.count(","), MAX_VALUES)
    try:
        return json.loads(text, object_pairs_hook=_to_object)
    except RecursionError as error:
        raise InvalidFieldError(name, "is nested too deeply") from error
    except ValueError as error:
        raise InvalidFieldError(name, f"is no JSON: {error}") from error


def to_object(path: str, given: object, known: set[str]) -> dict[str, object]:
    """Raises InvalidFieldError unless it is a JSON object with none but known keys."""
    if not isinstance(given, dict):
        raise InvalidFieldError(path, "is no JSON object")
    for key in given:
        if key not in known:
            raise InvalidFieldError(f"{path}.{shortened(key)}", "is not known here")
    return given


def shortened(name: str) -> str:
    """A client's own name for something, fit for a status message."""
    if not name:
        return "(no name)"
    return name if len(name) <= _MAX_SHOWN else f"{name[:_MAX_SHOWN]}…"


def _to_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Raises ValueError, which json.loads' callers expect."""
    for key, _ in pairs:
        key.encode()
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object has the same key twice")
    return fields


def _to_single(name: str, option: Option, given: object) -> bool | int | float | str:
    match option.kind:
        case Kind.FLAG:
            return _to_flag(name, given)
        case Kind.INT:
            return _to_int(name, given, option.bounds)
        case Kind.FLOAT:
            return _to_float(name, given)
        case _:
            return to_text(name, given)


def _to_flag(name: str, given: object) -> bool:
    flag = _FLAGS.get(given.lower()) if isinstance(given, str) else given
    if not isinstance(flag, bool):
        raise InvalidFieldError(name, f"{_shown(given)} is neither true nor false")
    return flag


def _to_int(name: str, given: object, bounds: tuple[int, int]) -> int:
    number = _parsed(given, int)
    if not isinstance(number, int) or isinstance(number, bool):
        raise InvalidFieldError(name, f"{_shown(given)} is no whole number")
    low, high = bounds
    if not low <= number <= high:
        raise InvalidFieldError(name, f"{_shown(number)} is not in [{low}, {high}]")
    return number


def _to_float(name: str, given: object) -> float:
    number = _parsed(given, float)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise InvalidFieldError(name, f"{_shown(given)} is no number")
    try:
        number = float(number)
    except OverflowError as error:
        raise InvalidFieldError(name, f"{_shown(given)} is not finite") from error
    if not math.isfinite(number):
        raise InvalidFieldError(name, f"{_shown(given)} is not finite")
    return number


def _parsed(given: object, parse: type[int] | type[float]) -> object:
    """The number that a text says; anything else as it is."""
    if not isinstance(given, str):
        return given
    try:
        return parse(given)
    except ValueError:
        return given


def _to_biases(name: str, given: object, bounds: tuple[int, int]) -> Biases:
    """By token id; the object, or its JSON."""
    entries = given if isinstance(given, dict) else from_json(name, to_text(name, given))
    if not isinstance(entries, dict):
        raise InvalidFieldError(name, "is no JSON object")
    biases = {_to_int(name, key, bounds): _to_float(name, bias) for key, bias in entries.items()}
    if len(biases) != len(entries):
        raise InvalidFieldError(name, "has the same token twice")
    return tuple(sorted(biases.items()))


def _to_list(given: object) -> tuple[object, ...]:
    return tuple(given) if isinstance(given, list | tuple) else (given,)


def _shown(given: object) -> str:
    """Short, whatever it is: a whole number may have too many digits to be written out."""
    if isinstance(given, int) and given.bit_length() > 128:
        return f"a number of {given.bit_length()} bits"
    return shortened(repr(given)) if isinstance(given, str | int | float | bool) else type(given).__name__
