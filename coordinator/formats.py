"""Whether output formats compile, found before a request is accepted and off the event loop."""

from __future__ import annotations

from coordinator.errors import InvalidFieldError, OverloadedError
from core.format_turns import FormatTurns, TooManyFormatsError
from core.grammars import FormatError, Grammars
from core.output_format import OutputFormat

MOST_PER_TENANT = 32
_RETRY_AFTER_S = 1.0


class Formats:
    def __init__(self, grammars: Grammars) -> None:
        self._turns = FormatTurns(grammars)

    async def check(self, tenant: str, form: OutputFormat) -> None:
        """Raises InvalidFieldError naming the format's field, OverloadedError where too many wait."""
        try:
            await self._turns.compile(tenant, form, MOST_PER_TENANT)
        except FormatError as error:
            raise InvalidFieldError(form.field, str(error)) from None
        except TooManyFormatsError as error:
            raise OverloadedError(str(error), _RETRY_AFTER_S, "formats_per_tenant") from None
