"""The options of one request, from all the places where they may stand."""

from __future__ import annotations

from coordinator.errors import InvalidFieldError
from coordinator.oip.options import OPTIONS
from coordinator.oip.tensors import Tensor
from coordinator.oip.values import Biases, Value, from_json, shortened, to_value
from elasticmm.oip import open_inference_pb2 as pb

SAMPLING_PARAMETERS = "sampling_parameters"


class Wishes:
    """An option comes as an input tensor, as a request parameter, or as an entry of the JSON object
    `sampling_parameters`, and is given once. Every add_ raises InvalidFieldError with the name at fault.
    """

    def __init__(self) -> None:
        self._values: dict[str, Value] = {}
        self._given: dict[str, str] = {}  # by the option: the name that the client used

    def add_tensor(self, tensor: Tensor) -> None:
        """One whose name is an option's."""
        option = OPTIONS[tensor.name]
        if tensor.datatype not in option.kind.datatypes:
            raise InvalidFieldError(tensor.name, f"is {tensor.datatype}, not {option.datatype}")
        if option.kind.is_list:
            self._add(tensor.name, tensor.values)
            return
        self._add(tensor.name, only_value(tensor))

    def add_parameter(self, name: str, parameter: pb.InferParameter) -> None:
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidFieldError(shortened(name), "has no value")
        self._add(name, getattr(parameter, choice))

    def add_json(self, text: str) -> None:
        """The entries of `sampling_parameters`; null means no opinion."""
        entries = from_json(SAMPLING_PARAMETERS, text)
        if not isinstance(entries, dict):
            raise InvalidFieldError(SAMPLING_PARAMETERS, "is no JSON object")
        for name, given in entries.items():
            if given is not None:
                self._add(name, given)

    def flag(self, name: str) -> bool:
        return self._values.get(name) is True

    def whole(self, name: str) -> int | None:
        value = self._values.get(name)
        return value if isinstance(value, int) else None

    def number(self, name: str) -> float | None:
        value = self._values.get(name)
        return value if isinstance(value, float) else None

    def text(self, name: str) -> str:
        value = self._values.get(name)
        return value if isinstance(value, str) else ""

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._values.get(name, ())
        return tuple(each for each in value if isinstance(each, str)) if isinstance(value, tuple) else ()

    def ids(self, name: str) -> tuple[int, ...]:
        value = self._values.get(name, ())
        return tuple(each for each in value if isinstance(each, int)) if isinstance(value, tuple) else ()

    def biases(self, name: str) -> Biases:
        value = self._values.get(name, ())
        return tuple(each for each in value if isinstance(each, tuple)) if isinstance(value, tuple) else ()

    def has(self, name: str) -> bool:
        return name in self._values

    def given_name(self, name: str) -> str:
        """What the client calls the option; its own name where it was not given."""
        return self._given.get(name, name)

    def _add(self, name: str, given: object) -> None:
        option = OPTIONS.get(name)
        if option is None:
            raise InvalidFieldError(shortened(name), "is no parameter that is known here")
        key = option.same_as or name
        if key in self._values:
            raise InvalidFieldError(name, f"is given twice, also as {self._given[key]}")
        self._values[key] = to_value(name, option, given)
        self._given[key] = name


def only_value(tensor: Tensor) -> object:
    """Raises InvalidFieldError unless it has one element."""
    if len(tensor.values) != 1:
        raise InvalidFieldError(tensor.name, f"{len(tensor.values)} elements, not 1")
    return tensor.values[0]
