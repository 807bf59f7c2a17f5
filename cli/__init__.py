"""The `elasticmm` command: one file per command, imported when it is called."""
