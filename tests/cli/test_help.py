"""What the first page of help shows, in full."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata

import pytest
from typer.testing import CliRunner

from cli.main import COMMANDS, build_app


def help_of(*words: str) -> str:
    done = CliRunner().invoke(build_app(), [*words, "--help"])
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
    """Not under typer's runner, which has 80 columns of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "up", "--help"],
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 90 < max(map(len, done.stdout.splitlines())) <= 110


def test_version() -> None:
    done = CliRunner().invoke(build_app(), ["--version"])
    assert done.output == f"elasticmm {metadata.version('elasticmm')}\n"
