"""Options of `coordinator` and `up` that bound what the doors take in. Left out: the default."""

from __future__ import annotations

from typing import Annotated

import typer

MaxWaitingOption = Annotated[
    int | None,
    typer.Option("--max-waiting", metavar="N", min=1, help="Requests that may wait. Default: 256."),
]
MaxConnectionsOption = Annotated[
    int | None,
    typer.Option(
        "--max-connections", metavar="N", min=1, help="Of clients, to each listener. Default: 4096."
    ),
]
MaxCallsOption = Annotated[
    int | None, typer.Option("--max-calls", metavar="N", min=1, help="gRPC calls under way. Default: 4096.")
]
MaxMessageOption = Annotated[
    float | None,
    typer.Option(
        "--max-message-mib",
        metavar="MIB",
        min=0.001,
        help="A request with the pictures that are in it. Default: 32.",
    ),
]
MaxMediaOption = Annotated[
    int | None, typer.Option("--max-media", metavar="N", min=0, help="Pictures of one request. Default: 16.")
]
MaxMediaMibOption = Annotated[
    float | None,
    typer.Option("--max-media-mib", metavar="MIB", min=0.001, help="File of one picture. Default: 20."),
]
MaxMediaMegapixelsOption = Annotated[
    float | None,
    typer.Option("--max-media-megapixels", metavar="MPX", min=0.001, help="One picture. Default: 40."),
]
MediaStoreOption = Annotated[
    float | None,
    typer.Option(
        "--media-store-mib", metavar="MIB", min=0.001, help="All pictures that are kept. Default: 2048."
    ),
]
UrlTimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--url-timeout", min=0.001, metavar="SECONDS", help="To fetch a picture from a URL. Default: 10."
    ),
]
LateWaitOption = Annotated[
    float | None,
    typer.Option(
        "--late-wait",
        min=0.001,
        metavar="SECONDS",
        help="With policy emp, for so long who is late in any case lets others go first. Default: 60.",
    ),
]
ResumeTtlOption = Annotated[
    float | None,
    typer.Option(
        "--resume-ttl",
        min=0,
        metavar="SECONDS",
        help="Longest that an answer is kept for Resume; 0: never. Default: 300.",
    ),
]
