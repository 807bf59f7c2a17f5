"""What cuda_ipc asks of the driver: handles, mappings, copies of words, and what it says where it cannot."""

from __future__ import annotations

import ctypes

import pytest
import torch

from kv_transfer.pool import Pool
from kv_transfer.transports import cuda_driver
from kv_transfer.transports.cuda_driver import CudaDriver, CudaError, Exported, pieces
from tests.gpu import needs_gpu
from tests.kv_transfer.loopback import KV


@pytest.mark.parametrize(
    ("token_bytes", "dtype"), [(48, torch.int64), (12, torch.int32), (6, torch.int16), (3, torch.uint8)]
)
def test_bytes_are_copied_as_the_widest_words(token_bytes: int, dtype: torch.dtype) -> None:
    pool = torch.zeros(4, 10, token_bytes, dtype=torch.uint8)
    [words] = pieces(pool[1:3, 4:9])
    assert (words.dtype, words.shape[:2], words.nbytes) == (dtype, (2, 5), 10 * token_bytes)
    words.fill_(-1 if dtype.is_signed else 255)
    assert (pool == 255).sum() == 10 * token_bytes


def test_long_runs_are_copied_plane_by_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "WHOLE_PLANE_BYTES", 40)
    pool = torch.zeros(4, 10, 8, dtype=torch.uint8)
    assert [piece.shape for piece in pieces(pool[1:3, 4:9])] == [(5, 1), (5, 1)]
    assert [piece.shape for piece in pieces(pool[1:3, 4:8])] == [(2, 4, 1)]


class Library:
    """libcuda, as far as exporting and opening go; one device, one allocation at 4096."""

    def __init__(self, tensor: torch.Tensor, status: int = 0) -> None:
        self.tensor = tensor
        self.status = status
        self.current = 0

    def __getattr__(self, name: str) -> object:
        if not name.startswith("cu"):
            raise AttributeError(name)
        return lambda *_: 0

    def cuCtxPushCurrent_v2(self, *_: object) -> int:
        self.current += 1
        return 0

    def cuCtxPopCurrent_v2(self, *_: object) -> int:
        self.current -= 1
        return 0

    def cuMemGetAddressRange_v2(self, base: object, _: object, address: ctypes.c_uint64) -> int:
        base._obj.value = address.value - 768  # type: ignore[attr-defined]
        return 0

    def cuIpcGetMemHandle(self, handle: object, base: ctypes.c_uint64) -> int:
        assert (self.current, base.value) == (1, self.tensor.data_ptr() - 768)
        ctypes.memset(ctypes.addressof(handle._obj), 7, 64)  # type: ignore[attr-defined]
        return self.status

    def cuIpcOpenMemHandle_v2(self, address: object, handle: object, flags: int) -> int:
        assert (self.current, bytes(handle.reserved), flags) == (1, bytes(range(64)), 1)  # type: ignore[attr-defined]
        address._obj.value = 4096  # type: ignore[attr-defined]
        return self.status

    def cuGetErrorName(self, _: int, text: object) -> int:
        text._obj.value = b"CUDA_ERROR_INVALID_VALUE"  # type: ignore[attr-defined]
        return 0

    def cuGetErrorString(self, _: int, text: object) -> int:
        text._obj.value = b"invalid argument"  # type: ignore[attr-defined]
        return 0


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """A tensor of the host that says it is on GPU 0."""

    class OnGpu(torch.Tensor):
        is_cuda = True  # type: ignore[assignment]

        def get_device(self) -> int:
            return 0

    monkeypatch.setattr(cuda_driver, "_uuid", lambda index: f"GPU-{index}")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return torch.zeros(64).as_subclass(OnGpu)


def driver_with(library: Library) -> CudaDriver:
    driver = CudaDriver()
    driver.__dict__["_library"] = library
    return driver


def test_a_handle_is_of_the_whole_allocation(on_gpu: torch.Tensor) -> None:
    library = Library(on_gpu)
    assert driver_with(library).export(on_gpu) == Exported(b"\7" * 64, 768, "GPU-0")
    assert library.current == 0


def test_a_handle_is_opened_on_the_gpu_that_it_is_of(on_gpu: torch.Tensor) -> None:
    library = Library(on_gpu)
    mapped = driver_with(library).open(Exported(bytes(range(64)), 768, "GPU-1"))
    assert (mapped.address, mapped.device, library.current) == (4096, torch.device("cuda", 1), 0)


@pytest.mark.parametrize(
    ("settings", "words"), [("", r"argument\)$"), ("expandable_segments:True", "cannot be shared")]
)
def test_what_the_driver_says_is_told(
    settings: str, words: str, on_gpu: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", settings)
    driver = driver_with(Library(on_gpu, status=1))
    with pytest.raises(CudaError, match=f"cuIpcGetMemHandle: CUDA_ERROR_INVALID_VALUE .*{words}"):
        driver.export(on_gpu)
    with pytest.raises(CudaError, match="cuIpcOpenMemHandle_v2: CUDA_ERROR_INVALID_VALUE"):
        driver.open(Exported(bytes(range(64)), 0, "GPU-0"))


def test_what_makes_no_sense_is_refused(on_gpu: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = driver_with(Library(on_gpu))
    with pytest.raises(CudaError, match="host memory"):
        driver.export(torch.zeros(4))
    with pytest.raises(CudaError, match="3 bytes instead of 64"):
        driver.open(Exported(b"abc", 0, "GPU-0"))
    with pytest.raises(CudaError, match="GPU-7 is not visible"):
        driver.open(Exported(bytes(64), 0, "GPU-7"))
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda *_: False)
    with pytest.raises(CudaError, match="cuda:0 has no peer access to cuda:1"):
        driver.check_access(torch.device("cuda", 0), torch.device("cuda", 1))
    driver.check_access(torch.device("cuda", 0), torch.device("cuda", 0))
    driver.check_access(torch.device("cpu"), torch.device("cuda", 1))


@pytest.mark.gpu
@needs_gpu
def test_a_handle_of_this_process_is_refused_by_the_driver() -> None:
    """CUDA opens no handle where it was made; the error is ours, and the device goes on."""
    pool = Pool(KV, 12, device="cuda:0")
    driver = CudaDriver()
    with pytest.raises(CudaError, match="cuIpcOpenMemHandle_v2"):
        driver.open(driver.export(pool.memory))
    assert not pool.tensor.any()
