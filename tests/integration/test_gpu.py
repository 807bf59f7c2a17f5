"""Clusters whose instances share a GPU: tokens are those of transformers in float32, as on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints import build_checkpoint
from tests.gpu import needs_gpu
from tests.integration.asking import ask_all
from tests.integration.running import cluster
from tests.integration.test_exactness import NUM_TOKENS, Reference, check_greedy

pytestmark = [pytest.mark.cluster, pytest.mark.gpu, needs_gpu]


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reference]:
    folder = tmp_path_factory.mktemp("models")
    return {name: Reference(build_checkpoint(folder / name, name)) for name in ("first", "second")}


@pytest.mark.parametrize(
    ("family", "topology", "transport"),
    [
        ("first", "coupled", "auto"),
        ("first", "e1p1d1", "grpc"),
        ("second", "e1p1d1", "auto"),
    ],
)
def test_tokens_are_those_of_transformers(
    references: dict[str, Reference], tmp_path: Path, family: str, topology: str, transport: str
) -> None:
    reference = references[family]
    options = ["--device", "cuda:0", "--dtype", "float32", "--transport", transport, "--chunk-tokens", "33"]
    with cluster(tmp_path / "state", reference.model, topology, *options, "--kv-blocks", "600") as running:
        assert all(each.device.startswith("cuda:0") for each in running.status().instances)
        results = ask_all(running.client, reference.asked, max_tokens=NUM_TOKENS, ignore_eos=True)
        check_greedy(reference, results)
        for result in results:
            (moved,) = {span.transport for span in result.stages if span.stage == "prefill"}
            print(topology, transport, moved)
            if topology == "coupled":
                assert moved == "local"
            elif transport == "auto":
                assert moved in ("cuda_ipc", "grpc")  # the latter where the host opens no handle of the card
            else:
                assert moved == transport
        running.assert_idle()
