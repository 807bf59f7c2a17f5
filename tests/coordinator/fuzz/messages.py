"""Any message of a protobuf type, by its descriptor: no field is left out, and odd values are not rare."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

M = TypeVar("M", bound=Message)


class Told(dict[str, st.SearchStrategy[Any]]):
    """By a field's full name: values that get further than any would."""

    def __repr__(self) -> str:
        """Short, as it is within the names of many strategies."""
        return f"Told({len(self)} fields)"


_INT_BITS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_ENUM: (-(2**31), 2**31 - 1),
}
ODD_TEXTS = (
    "",
    " ",
    "\0",
    "é\u202e",
    "<|image_pad|>",
    "<|im_end|>",
    "x" * 300,
    "word " * 500,
    "{}",
    "[" * 99,
    "😀",
)
TEXTS = st.sampled_from(ODD_TEXTS) | st.text(max_size=8)
_MANY = (300, 10_000)
_MAX_LIST_BYTES = 100_000
_MAX_DEPTH = 6


def any_message(kind: type[M], told: Told, base: M | None = None) -> st.SearchStrategy[M]:
    """With a few fields that are odd; `base`: what the others hold."""
    return _messages(kind.DESCRIPTOR, told, _MAX_DEPTH).map(lambda odd: _laid_over(base, odd))


def _laid_over(base: M | None, odd: M) -> M:
    """Single fields of `odd` replace those of `base`, lists are longer by its elements."""
    whole = type(odd)()
    if base is not None:
        whole.CopyFrom(base)
    whole.MergeFrom(odd)
    return whole


@st.composite
def _messages(draw: st.DrawFn, kind: Descriptor, told: Told, depth: int) -> Any:
    message = GetMessageClass(kind)()
    fields = [field for field in kind.fields if depth > 0 or field.message_type is None]
    if fields:
        for field in draw(st.lists(st.sampled_from(fields), max_size=3, unique_by=lambda each: each.name)):
            _set(draw, message, field, told, depth - 1)
    return message


def _set(draw: st.DrawFn, message: Any, field: FieldDescriptor, told: Told, depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _set_map(draw, getattr(message, field.name), field.message_type, told, depth)
    elif field.is_repeated:
        values = draw(st.lists(_values(field, told, depth), min_size=1, max_size=3))
        getattr(message, field.name).extend(values * _times(draw, values))
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(draw(_values(field, told, depth)))
    else:
        setattr(message, field.name, draw(_values(field, told, depth)))


def _set_map(draw: st.DrawFn, entries: Any, entry: Descriptor, told: Told, depth: int) -> None:
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    for each in draw(st.lists(_values(key, told, depth), min_size=1, max_size=3)):
        if value.message_type is not None:
            entries[each].CopyFrom(draw(_values(value, told, depth)))
        else:
            entries[each] = draw(_values(value, told, depth))


def _times(draw: st.DrawFn, values: list[Any]) -> int:
    """How often a list is there over again; no message grows past a bound."""
    wanted = draw(st.sampled_from((*[1] * 8, *_MANY)))
    size = sum(each.ByteSize() if isinstance(each, Message) else len(str(each)) for each in values)
    return max(1, min(wanted, _MAX_LIST_BYTES // (size + len(values))))


def _values(field: FieldDescriptor, told: Told, depth: int) -> st.SearchStrategy[Any]:
    plain = _plain_values(field, told, depth)
    return told[field.full_name] | plain if field.full_name in told else plain


def _plain_values(field: FieldDescriptor, told: Told, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return _messages(field.message_type, told, depth)
    if field.type == FieldDescriptor.TYPE_STRING:
        return TEXTS
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=40)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type in _INT_BITS:
        low, high = _INT_BITS[field.type]
        return st.sampled_from((low, high, 0, 1, 5)) | st.integers(low, high)
    return st.floats(width=32 if field.type == FieldDescriptor.TYPE_FLOAT else 64)
