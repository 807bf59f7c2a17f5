"""What instances sent to each other, as `elasticmm status` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from elasticmm_client.status import ClusterStatus, TransferStatus

_MIB = 1 << 20


def transfer_table(status: ClusterStatus) -> Table | None:
    """One row per sender, receiver and transport; None where nothing was sent."""
    from rich import box
    from rich.table import Table

    rows = [transfer_row(instance.id, each) for instance in status.instances for each in instance.transfers]
    if not rows:
        return None
    table = Table(box=box.SIMPLE, pad_edge=False)
    for header in ("from", "to", "transport"):
        table.add_column(header)
    for header in ("transfers", "MiB", "MiB/s", "in flight"):
        table.add_column(header, justify="right")
    table.add_column("failures")
    for row in rows:
        table.add_row(*row)
    return table


def transfer_row(sender: str, sent: TransferStatus) -> tuple[str, ...]:
    """The cells of one pair; a rate only where something was sent."""
    aborted = f" ({sent.aborted} aborted)" if sent.aborted else ""
    size_mib = sent.size_bytes / _MIB
    return (
        sender,
        sent.peer,
        sent.transport or "-",
        f"{sent.committed}{aborted}",
        f"{size_mib:.1f}",
        f"{size_mib / sent.seconds:.1f}" if sent.seconds else "-",
        str(sent.in_flight),
        " ".join(f"{cause} {count}" for cause, count in sorted(sent.failures.items())),
    )
