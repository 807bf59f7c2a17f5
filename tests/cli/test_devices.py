from pathlib import Path

import pytest

import cli.devices
from cli.devices import choose_device, choose_devices
from cli.torch_build import build_without_cuda
from stage_servers.devices import Gpu
from tests.cli.conftest import RunCli


def test_several_devices_are_named_with_commas() -> None:
    assert choose_devices("cuda:0, cuda:2") == ("cuda:0", "cuda:2")
    assert choose_device("cuda:1") == "cuda:1"


@pytest.mark.parametrize("wanted", ["", "cpu,", ",cpu"])
def test_an_empty_place_is_no_device(wanted: str) -> None:
    with pytest.raises(ValueError, match="device: .* names no device"):
        choose_devices(wanted)


def test_one_stage_server_takes_one_device() -> None:
    with pytest.raises(ValueError, match="device: one stage server takes one device, not 'cpu,cpu'"):
        choose_device("cpu,cpu")


def test_up_names_the_profiles_that_differ(run_cli: RunCli, model: Path) -> None:
    told = run_cli("up", "--model", model, "--device", "emulated:cpu-demo,emulated:cpu-120m")
    assert told.exit_code == 2
    assert "cpu-demo and cpu-120m" in told.stderr


GPU = Gpu(0, "NVIDIA H100", 80 << 30, 80 << 30, 0.0, ())


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[Gpu]:
    """Those of the host, and a torch that may use them."""
    found = [GPU]
    monkeypatch.setattr(cli.devices, "find_gpus", lambda: tuple(found))
    monkeypatch.setattr(cli.devices, "build_without_cuda", lambda: None)
    return found


def test_auto_takes_gpus_and_else_the_cpu(gpus: list[Gpu], capsys: pytest.CaptureFixture[str]) -> None:
    assert choose_devices("auto") == choose_devices("cuda") == ("cuda:0",)
    gpus.clear()
    assert choose_devices("auto") == ("cpu",)
    with pytest.raises(ValueError, match="device: no CUDA device was found"):
        choose_devices("cuda")
    assert capsys.readouterr().err == ""


def test_a_torch_without_cuda_takes_the_cpu_and_says_so(
    gpus: list[Gpu], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.devices, "build_without_cuda", lambda: "2.13.0+cpu")
    assert choose_devices("auto") == ("cpu",)
    reason = "torch 2.13.0+cpu is built without CUDA, and cannot use the NVIDIA H100 that is here"
    said = f"elasticmm: device: {reason}: taking the CPU (see elasticmm doctor)\n"
    assert capsys.readouterr().err == said
    gpus.append(GPU)
    with pytest.raises(ValueError, match="cannot use the 2 GPUs that are here"):
        choose_devices("cuda")
    assert choose_devices("cuda:0") == ("cuda:0",)  # who says so means it: the engine's own error tells more


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n", "2.13.0+cpu"),
        ("__version__ = '2.13.0+cu128'\ncuda = '12.8'\n", None),
        ("__version__ = '3'\n", None),
        ("no python", None),
        (None, None),
    ],
)
def test_the_build_is_read_without_importing_it(
    tmp_path: Path, content: str | None, told: str | None
) -> None:
    if content is not None:
        (tmp_path / "version.py").write_text(content)
    assert build_without_cuda(tmp_path) == told


def test_the_installed_build_is_found() -> None:
    import torch

    expected = torch.__version__ if torch.version.cuda is None else None
    assert build_without_cuda() == expected
