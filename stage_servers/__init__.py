"""The data plane: one process per instance, playing any set of the three roles."""
