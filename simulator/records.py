"""TOML tables to records, as `core.record` does, with defaults for what is left out."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from core.record import decode, encode

T = TypeVar("T")


def decode_partly(record: type[T], table: Mapping[str, object], key: str = "") -> T:
    """The record of the table; a key that is not there has the record's default. Raises RecordError."""
    return decode(record, _filled(record, table), key)


def _filled(wanted: Any, value: object) -> object:
    """The value with defaults put in wherever a record is wanted."""
    origin = get_origin(wanted)
    if origin in (Union, types.UnionType) and value is not None:
        return _filled(next(each for each in get_args(wanted) if each is not type(None)), value)
    if origin is tuple and isinstance(value, list):
        return [_filled(get_args(wanted)[0], each) for each in value]
    if origin is dict and isinstance(value, dict):
        return {name: _filled(get_args(wanted)[1], each) for name, each in value.items()}
    if not is_dataclass(wanted) or not isinstance(value, Mapping):
        return value
    hints = get_type_hints(wanted)
    filled = {name: _filled(hints[name], each) if name in hints else each for name, each in value.items()}
    for each in fields(wanted):
        if each.name in filled:
            continue
        if each.default is not MISSING:
            filled[each.name] = encode(each.default)
        elif each.default_factory is not MISSING:
            filled[each.name] = encode(each.default_factory())
    return filled
