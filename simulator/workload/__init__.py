"""Requests over time, made from published statistics or read from public trace files; seeded."""
