"""Plain JSON or TOML values to frozen dataclasses and back; what does not fit is refused by its key."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class RecordError(ValueError):
    """A value that does not fit; `key` is its dotted path, "" the record as a whole."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}" if key else problem)
        self.key = key
        self.problem = problem


def decode(record: type[T], value: object, key: str = "") -> T:
    """The record whose every field, defaults included, stands under its name in the mapping `value`.

    Fields may be str, bool, int, float, None, Literal of str, tuple[X, ...], dict[str, X], dataclasses and
    unions with None. Numbers must be finite and not negative. Raises RecordError.
    """
    found: T = _decode(record, value, key)
    return found


def encode(value: object) -> Any:
    """What `decode` reads; tuples become lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: encode(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple | list):
        return [encode(each) for each in value]
    if isinstance(value, Mapping):
        return {name: encode(each) for name, each in value.items()}
    return value


@cache
def _hints(record: type) -> dict[str, Any]:
    return get_type_hints(record)


def _decode(wanted: Any, value: object, key: str) -> Any:
    if is_dataclass(wanted):
        return _dataclass(wanted, value, key)
    origin = get_origin(wanted)
    if origin in (Union, types.UnionType):
        rest = [each for each in get_args(wanted) if each is not type(None)]
        return None if value is None else _decode(rest[0], value, key)
    if origin is Literal:
        return _choice(get_args(wanted), value, key)
    if origin is tuple:
        items = _instance(list, "a list", value, key)
        return tuple(_decode(get_args(wanted)[0], each, f"{key}[{at}]") for at, each in enumerate(items))
    if origin is dict:
        table = _instance(dict, "a table", value, key)
        return {name: _decode(get_args(wanted)[1], each, _join(key, name)) for name, each in table.items()}
    return _PLAIN[wanted](value, key)


def _dataclass(record: Any, value: object, key: str) -> Any:
    table = _instance(dict, "a table", value, key)
    names = [each.name for each in fields(record)]
    for name in table:
        if name not in names:
            raise RecordError(_join(key, name), f"is no known key (known: {', '.join(names)})")
    for name in names:
        if name not in table:
            raise RecordError(_join(key, name), "is missing")
    hints = _hints(record)
    return record(**{name: _decode(hints[name], table[name], _join(key, name)) for name in names})


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def _instance(kind: type, words: str, value: object, key: str) -> Any:
    if not isinstance(value, kind):
        raise RecordError(key, f"should be {words}, is {value!r:.60}")
    return value


def _choice(allowed: tuple[str, ...], value: object, key: str) -> object:
    if value not in allowed:
        raise RecordError(key, f"should be one of {', '.join(allowed)}, is {value!r:.60}")
    return value


def _text(value: object, key: str) -> object:
    return _instance(str, "text", value, key)


def _flag(value: object, key: str) -> object:
    return _instance(bool, "true or false", value, key)


def _whole(value: object, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RecordError(key, f"should be a whole number, is {value!r:.60}")
    _check_not_negative(value, key)
    return value


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError(key, f"should be a number, is {value!r:.60}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RecordError(key, "should be a finite number")
    _check_not_negative(value, key)
    return number


def _check_not_negative(value: float, key: str) -> None:
    if value < 0:
        raise RecordError(key, f"should not be negative, is {value!r:.60}")


_PLAIN: dict[Any, Callable[[object, str], Any]] = {str: _text, bool: _flag, int: _whole, float: _number}
