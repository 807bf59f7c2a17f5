"""Conversions between protobuf messages and the domain's records."""
