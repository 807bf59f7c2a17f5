"""elasticmm shadow status: how the policy set in the shadow has decided so far."""

from __future__ import annotations

from cli.connection import admin_of, endpoint_of
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.shadow.report import show
from cli.state import DEFAULT_NAME


def run(
    *,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Shows how often the set in the shadow decides otherwise than the acting one, and in what."""
    with admin_of(
        endpoint_of(name, state_dir, address, token_file, as_json=as_json), as_json=as_json
    ) as admin:
        report = admin.shadow_report()
    show(report, as_json=as_json)
