"""What tests need of a GPU, and where Triton's kernels run: there, or in its interpreter.

Not for modules that children of tests import: asking for a GPU before a fork keeps the child from one.
"""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

_HAS_TRITON = importlib.util.find_spec("triton") is not None
_IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

needs_kernels = pytest.mark.skipif(
    not _HAS_TRITON or not (_IS_INTERPRETED or torch.cuda.is_available()),
    reason="needs triton, and a CUDA device or TRITON_INTERPRET=1",
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICE = torch.device("cpu" if _IS_INTERPRETED or not torch.cuda.is_available() else "cuda:0")
