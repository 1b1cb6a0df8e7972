"""How many examples Hypothesis makes up, and which.

They are the same each time, so that a change is judged by what it changed. `tox -e
search` looks further, with others each time. Nothing of it is timed: that a machine is
busy is no failure.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "usual",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("usual")
# `tox` plays with one Python what takes long, and fewer examples with the others.
settings.register_profile("fewer", max_examples=25)
settings.register_profile(
    "search", max_examples=2000, derandomize=False, print_blob=True
)


def times(factor, **others):
    """Return settings for a test that needs more examples than others, or fewer."""
    return settings(
        max_examples=round(factor * settings.default.max_examples), **others
    )
