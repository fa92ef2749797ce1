"""For every test: no timed assertion, and Hypothesis' deadline is one."""

from hypothesis import settings

settings.register_profile("parrot", deadline=None, print_blob=True)
settings.load_profile("parrot")
