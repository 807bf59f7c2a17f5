import subprocess
import sys

import pytest

from cli.main import COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_start_without_torch(command: str) -> None:
    """Help of every command, and what status needs to ask, in a fresh process."""
    program = f"""
import sys
from cli.main import build_app
try:
    build_app(["{command}"])(["{command}", "--help"])
except SystemExit as end:
    assert end.code == 0
import cli.endpoint, elasticmm_client
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: " in done.stdout


def test_a_command_imports_no_other_command() -> None:
    program = "import sys, cli.main; cli.main.build_app(['status']); print('cli.up' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
