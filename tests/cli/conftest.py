import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.main import build_app
from core.families import ARCHITECTURES
from tests.clients.fake_cluster import FakeCluster

RunCli = Callable[..., Result]


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    fake = FakeCluster()
    yield fake
    fake.stop()


@pytest.fixture
def run_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunCli:
    """Runs a command in this process, away from the user's own clusters."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("ELASTICMM_TOKEN", raising=False)

    def run(*words: object) -> Result:
        return CliRunner().invoke(build_app(), [str(word) for word in words])

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that passes for a model where none is loaded."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": [ARCHITECTURES[0]]}))
    for name in ("tokenizer.json", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    for name in ("model.safetensors", "chat_template.jinja"):
        (folder / name).touch()
    return folder
