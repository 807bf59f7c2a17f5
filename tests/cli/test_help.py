"""What the first page of help shows, in full."""

from __future__ import annotations

from importlib import metadata

import pytest
from typer.testing import CliRunner

from cli.main import COMMANDS, build_app


def help_of(*words: str, columns: int = 80) -> str:
    done = CliRunner().invoke(build_app(), [*words, "--help"], env={"COLUMNS": str(columns)})
    assert done.exit_code == 0
    return done.output


def test_no_command_is_cut_short() -> None:
    shown = help_of()
    assert "..." not in shown.replace("[ARGS]...", "")
    for name, meaning in COMMANDS.items():
        assert f"{name} " in shown
        assert meaning in shown


@pytest.mark.parametrize("name", ["cache", "ab", "shadow"])
def test_no_sub_command_is_cut_short(name: str) -> None:
    assert "..." not in help_of(name).replace("[ARGS]...", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_values_of_options_are_named(name: str) -> None:
    options = [line for line in help_of(name).splitlines() if line.startswith("  -")]
    assert not any(word in line for line in options for word in ("<int", "<float", "<str", "<path"))


def test_help_uses_a_wide_terminal() -> None:
    assert max(map(len, help_of("up", columns=200).splitlines())) > 90


def test_version() -> None:
    done = CliRunner().invoke(build_app(), ["--version"])
    assert done.output == f"elasticmm {metadata.version('elasticmm')}\n"
