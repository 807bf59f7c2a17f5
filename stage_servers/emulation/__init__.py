"""A device that takes a profile's time instead of computing: the rest of the stage server is the real one."""
