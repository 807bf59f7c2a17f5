"""What --tls-… options become."""

from pathlib import Path

import pytest

import cli.stage
from stage_servers.config import StageConfig
from tests.certificates import Authority
from tests.cli.conftest import RunCli


@pytest.fixture
def stage_words(model: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    monkeypatch.setenv("ELASTICMM_TOKEN", "t")
    return "stage", "--coordinator", "127.0.0.1:1", "--model", model


def test_stage_takes_them(
    run_cli: RunCli, stage_words: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[StageConfig] = []
    monkeypatch.setattr(cli.stage, "serve", lambda config, **_: served.append(config))
    files = Authority(tmp_path / "tls").issue(expected="stage")
    options = ("--tls-cert", files.cert, "--tls-key", files.key, "--tls-ca", files.ca, "--tls-name", "stage")
    result = run_cli(*stage_words, *options)
    assert result.exit_code == 0, result.output
    assert [config.tls for config in served] == [files]


def test_relative_files_are_found_whatever_the_folder_of_the_stage_server(
    run_cli: RunCli, stage_words: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[StageConfig] = []
    monkeypatch.setattr(cli.stage, "serve", lambda config, **_: served.append(config))
    files = Authority(tmp_path).issue()
    monkeypatch.chdir(tmp_path)
    options = ("--tls-cert", files.cert.name, "--tls-key", files.key.name, "--tls-ca", files.ca.name)
    assert run_cli(*stage_words, *options).exit_code == 0
    assert [config.tls for config in served] == [files]


def test_a_missing_file_is_wrong_usage(
    run_cli: RunCli, stage_words: tuple[object, ...], tmp_path: Path
) -> None:
    files = Authority(tmp_path / "tls").issue()
    options = ("--tls-cert", files.cert, "--tls-key", "/no/such", "--tls-ca", files.ca)
    for words in (stage_words, ("up", "--model", stage_words[-1])):
        result = run_cli(*words, *options)
        assert result.exit_code == 2
        assert "tls_key: /no/such cannot be read" in result.stderr
