"""Pure decisions: books and time in, decision records out; no I/O, no asyncio, no wall clock."""
