"""The TypeScript example asks a real cluster and gets the answer that the Python client gets."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import build_checkpoint
from tests.exactness import make_picture
from tests.integration.asking import Asked
from tests.integration.running import cluster

FOLDER = Path(__file__).parents[2] / "clients" / "typescript"

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")]


def test_the_example_answers_as_the_python_client(tmp_path: Path) -> None:
    picture = make_picture(np.random.default_rng(1), 112, 112)
    (tmp_path / "picture.png").write_bytes(picture)
    if not (FOLDER / "node_modules").is_dir():
        subprocess.run(["npm", "ci", "--prefer-offline"], cwd=FOLDER, check=True, capture_output=True)
    model = build_checkpoint(tmp_path / "model")
    options = ["--dtype", "float32", "--threads", "1", "--no-prefix-cache"]
    with cluster(tmp_path / "state", model, "e1p1d1", *options) as running:
        asked = Asked((picture, "what is the colour?"))
        expected = running.client.generate(asked.messages, max_tokens=64).result()
        command = ["npm", "run", "--silent", "example", "--", "--address", running.address]
        command += ["--image", str(tmp_path / "picture.png"), "what is the colour?"]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        # The example sets a limit of its own: one answer begins with the other.
        text = done.stdout.decode().removesuffix("\n")
        assert text
        assert text.startswith(expected.text) or expected.text.startswith(text)
        for stage in ("encode on e-0", "prefill on p-0", "decode on d-0"):
            assert stage in done.stderr.decode()
        running.assert_idle()
