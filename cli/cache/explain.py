"""elasticmm cache explain: what a request found in the caches, and why not more."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import admin_of, endpoint_of
from cli.exits import print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME

if TYPE_CHECKING:
    from elasticmm_client.caches import CacheExplanation, MediaExplanation


def run(
    request_id: Annotated[
        str, typer.Argument(metavar="REQUEST", help="As the client gave it, or was told it.")
    ],
    *,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Says what REQUEST_ID, one of the last that were dispatched, found in the caches, and why not more."""
    with admin_of(
        endpoint_of(name, state_dir, address, token_file, as_json=as_json), as_json=as_json
    ) as admin:
        found = admin.explain_cache(request_id)
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        print("\n".join(_lines(found)))


def _lines(found: CacheExplanation) -> Iterator[str]:
    whose = f"{found.request_id} of tenant {found.tenant}, scope {found.scope}"
    yield f"{whose}, prefilled on {found.prefill_instance}"
    known = f"{found.known_instance} had {found.known_tokens}" if found.known_instance else "nobody had any"
    share = f"{found.cached_tokens} of {found.prompt_tokens}"
    yield f"{share} prompt tokens came from a cache; at dispatch {known}"
    yield from (_media_line(item) for item in found.media)
    yield from (f"- {reason}" for reason in found.reasons)


def _media_line(item: MediaExplanation) -> str:
    outcome = "from a cache" if item.was_cached else "encoded"
    where = f" on {item.encode_instance}" if item.encode_instance else ""
    known = ", ".join(item.known_instances) or "nobody"
    return f"{item.field}: {outcome}{where}; at dispatch {known} had it"
