"""elasticmm why: the policies' newest decisions and the numbers they weighed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import admin_of, endpoint_of
from cli.exits import print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME

if TYPE_CHECKING:
    from elasticmm_client.plan import Decision


def run(
    subject: Annotated[
        str | None, typer.Argument(metavar="SUBJECT", help="A request or an instance. Default: all.")
    ] = None,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Show the newest so many.")] = 20,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Shows why the policies did what they did, oldest first."""
    with admin_of(endpoint_of(name, state_dir, address, token_file), as_json=as_json) as admin:
        decisions = admin.why(subject, limit)
    if as_json:
        print_json({"decisions": [dataclasses.asdict(each) for each in decisions]})
    elif decisions:
        print("\n".join(_line(each) for each in decisions))
    else:
        print("no decision is kept" + (f" about {subject}" if subject else ""))


def _line(decision: Decision) -> str:
    weighed = ", ".join(f"{key} {value:.4g}" for key, value in sorted(decision.numbers.items()))
    text = f"{decision.age_s:8.1f} s ago  {decision.piece}: {decision.subject} {decision.choice}"
    return f"{text}  ({weighed})" if weighed else text
