"""Whether output formats compile, found before a request is accepted and off the event loop."""

from __future__ import annotations

import asyncio

from coordinator.errors import InvalidFieldError
from core.grammars import FormatError, Grammars
from core.output_format import OutputFormat


class Formats:
    def __init__(self, grammars: Grammars) -> None:
        self._grammars = grammars
        self._turn = asyncio.Lock()  # one thread at a time, as compiling has a core to itself

    async def check(self, form: OutputFormat) -> None:
        """Raises InvalidFieldError naming the format's field."""
        async with self._turn:
            try:
                await asyncio.to_thread(self._grammars.matcher, form)
            except FormatError as error:
                raise InvalidFieldError(form.field, str(error)) from None
