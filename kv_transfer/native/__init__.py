"""Copies that the C library's memcpy does not do as fast."""
