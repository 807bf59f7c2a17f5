"""Property tests here assert nothing about time: the machine may be busy."""

from hypothesis import settings

settings.register_profile("policy", deadline=None)
settings.load_profile("policy")
