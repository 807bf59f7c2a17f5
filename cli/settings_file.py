"""--config: a command's options from a TOML file, below those of the command line."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperOption


def read_settings(path: Path, parameters: Sequence[object]) -> dict[str, Any]:
    """Values by parameter. Keys are options without their dashes in front.

    Raises ValueError naming the file, and the line or key.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    options = {
        name.removeprefix("--"): each
        for each in parameters
        if isinstance(each, TyperOption) and not each.is_eager
        for name in each.opts
        if name.startswith("--")
    }
    settings: dict[str, Any] = {}
    for key, value in table.items():
        option = options.get(key.replace("_", "-"))
        if option is None or option.name is None:
            raise ValueError(f"{path}: {key}: {_no_option(key, list(options))}")
        settings[option.name] = _value(option, value, f"{path}: {key}")
    return settings


def _no_option(key: str, options: list[str]) -> str:
    near = difflib.get_close_matches(key.replace("_", "-"), options, 1)
    return "there is no such option" + (f", did you mean {near[0]}?" if near else "")


def _value(option: TyperOption, value: Any, where: str) -> Any:
    values = value if isinstance(value, list) else [value]
    if isinstance(value, list) and not option.multiple:
        raise ValueError(f"{where}: takes one value, not a list")
    for each in values:
        if option.is_flag != isinstance(each, bool):
            raise ValueError(
                f"{where}: takes {'true or false' if option.is_flag else 'a value'}, not {each!r}"
            )
        if not isinstance(each, bool | int | float | str):
            raise ValueError(f"{where}: takes a number or a text, not {each!r}")
    return [str(each) for each in values] if option.multiple else value


def _use(context: typer.Context, path: Path | None) -> Path | None:
    if path is not None:
        try:
            context.default_map = {
                **(context.default_map or {}),
                **read_settings(path, context.command.params),
            }
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    return path


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        is_eager=True,
        callback=_use,
        help="Options from a file: port = 50051, policy = 'emp', … The command line goes before it.",
    ),
]
