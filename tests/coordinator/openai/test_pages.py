"""What is only to be read."""

from __future__ import annotations

from tests.coordinator.openai.conftest import error_of
from tests.coordinator.openai.scripted import Script


async def test_models() -> None:
    async with Script().client() as client:
        (model,) = (await client.get("/v1/models")).json()["data"]
        assert (model["id"], model["object"], model["max_model_len"]) == ("org/m", "model", 100)
        assert (await client.get("/v1/models/org/m")).json() == model
        assert error_of(await client.get("/v1/models/other"), 404)["code"] == "model_not_found"


async def test_health_and_readiness() -> None:
    script = Script(is_ready=False)
    async with script.client() as client:
        assert (await client.get("/health")).status_code == 200
        error_of(await client.get("/ready"), 503)
        script.is_ready = True
        assert (await client.get("/ready")).status_code == 200


async def test_version() -> None:
    async with Script().client() as client:
        assert (await client.get("/version")).json() == {"version": "1.2"}


async def test_the_document_names_every_route_and_field() -> None:
    script = Script()
    async with script.client() as client:
        document = (await client.get("/openapi.json")).json()
    routes = {route.path.replace(":path", "") for route in script.app().routes}
    assert document["paths"].keys() == routes - {"/openapi.json"}
    assert "response_format" in document["components"]["schemas"]["ChatRequest"]["properties"]
    assert document["components"]["schemas"]["JsonSchema"]["required"] == ["schema"]
