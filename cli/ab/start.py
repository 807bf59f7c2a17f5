"""elasticmm ab start: gives a second policy set a share of the instances."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.connection import admin_of, endpoint_of
from cli.exits import print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME


def run(
    policy: Annotated[str, typer.Argument(metavar="SET", help="As of 'elasticmm up --policy'.")],
    *,
    share: Annotated[float, typer.Option(metavar="X", help="Of the instances and of the requests.")] = 0.5,
    experiment: Annotated[
        str,
        typer.Option(
            "--id",
            metavar="NAME",
            help="The same one divides conversations the same way. Default: a new one.",
        ),
    ] = "",
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Has SET plan and dispatch on a share of the instances, for a share of the requests, until 'ab stop'."""
    with admin_of(
        endpoint_of(name, state_dir, address, token_file, as_json=as_json), as_json=as_json
    ) as admin:
        experiment = admin.start_trial(policy, share, experiment)
    if as_json:
        print_json({"policy": policy, "share": share, "experiment": experiment})
    else:
        print(f"{policy} has {share:.0%} of the instances, experiment {experiment}: elasticmm ab status")
