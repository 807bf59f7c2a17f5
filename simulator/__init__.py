"""The coordinator's own policies driven in virtual time over measured or derived stage costs."""
