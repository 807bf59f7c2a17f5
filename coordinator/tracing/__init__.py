"""Traces for OpenTelemetry: one of every accepted request, made when it has ended."""
