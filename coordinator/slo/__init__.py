"""Whether targets were met, and how two policy sets compare."""
