"""elasticmm doctor: what keeps a cluster from running here, and the mend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.exits import FAILED, print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME, find_state_dir

if TYPE_CHECKING:
    from cli.checkup.finding import Finding

_MARKS = {"ok": "ok  ", "note": "note", "problem": "BAD "}


def run(
    *,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="DIR", help="Hugging Face folder to look at, too.")
    ] = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Looks at versions, devices, memory, compiler, model and cluster. Exits 1 if something is wrong."""
    from cli.checkup.finding import Level

    found = []
    for finding in examine(model, address, name, state_dir, token_file):
        found.append(finding)
        if not as_json:
            print("\n".join(lines(finding)), flush=True)
    is_well = all(each.level is not Level.PROBLEM for each in found)
    if as_json:
        print_json({"ok": is_well, "findings": [each.to_json() for each in found]})
    if not is_well:
        raise typer.Exit(FAILED)


def examine(
    model: Path | None, address: str | None, name: str, state_dir: Path | None, token_file: Path | None
) -> Iterator[Finding]:
    """One after the other, as each is known; exits 2 where a token cannot be read."""
    from cli.checkup.cluster import check_cluster
    from cli.checkup.compiler import check_compiler
    from cli.checkup.devices import check_devices
    from cli.checkup.model import check_model
    from cli.checkup.shared_memory import check_shared_memory
    from cli.checkup.versions import check_versions
    from cli.connection import endpoint_of

    endpoint = endpoint_of(name, state_dir, address, token_file, has_to_be_up=False)
    yield from check_versions()
    yield from check_devices()
    yield from check_shared_memory()
    yield from check_compiler()
    if model is not None:
        yield from check_model(model)
    yield from check_cluster(find_state_dir(state_dir, name), endpoint, is_named=address is not None)


def lines(finding: Finding) -> Iterator[str]:
    yield f"{_MARKS[finding.level.value]}  {finding.subject}: {finding.said}"
    if finding.mend:
        yield f"      mend: {finding.mend}"
