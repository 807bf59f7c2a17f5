"""Prometheus' checker, where it is installed (Debian: apt-get install prometheus)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

RULES_FILE = Path("deploy/prometheus/alerts.yml")

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def lint(text: str) -> list[str]:
    """What `promtool check metrics` finds in an exposition; raises AssertionError where it cannot read it."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 3), done.stderr
    return done.stderr.splitlines()
