"""Names, layout and comments of the schemas, as `buf` checks them (protos/buf.yaml)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUF = ROOT / "clients" / "typescript" / "node_modules" / ".bin" / "buf"


@pytest.mark.skipif(not BUF.exists(), reason="needs what `npm ci` installs in clients/typescript")
def test_schemas_are_clean(tmp_path: Path) -> None:
    done = subprocess.run(
        [BUF, "lint", "protos"],
        cwd=ROOT,
        env={"HOME": str(tmp_path), "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
