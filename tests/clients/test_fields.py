"""Every field of a request can be set from the Python client."""

from __future__ import annotations

import pytest

from elasticmm.v1 import inference_pb2 as pb
from elasticmm_client import Client
from elasticmm_client.request import GenerateOptions
from tests.clients.fake_answers import brief
from tests.clients.fake_cluster import FakeCluster
from tests.clients.field_rows import ROWS, all_paths, leaves_in


def test_the_rows_set_every_field_and_use_every_option() -> None:
    found = {path for row in ROWS.values() for path, _ in leaves_in(row.request)}
    assert found == set(all_paths(pb.GenerateRequest.DESCRIPTOR))
    used = {name for row in ROWS.values() for name in row.options}
    assert used == set(GenerateOptions.__annotations__) - {"timeout_s"}


@pytest.mark.parametrize("name", ROWS)
def test_it_arrives(client: Client, cluster: FakeCluster, name: str) -> None:
    row = ROWS[name]
    cluster.answer, cluster.has_gateway = brief, row.has_gateway
    client.generate(row.messages, **row.options).result()
    assert cluster.requests == [row.request]
