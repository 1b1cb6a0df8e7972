"""How a guest kernel dies of its driver.

Nothing of this leaves :mod:`balloon_plugin.guests`: whoever runs a guest reads of its
end in ``oops``, and the simulation goes on, as a host goes on.
"""

from __future__ import annotations

__all__ = ["Oops"]


class Oops(Exception):  # noqa: N818 - the kernel's own word for it
    """The driver's thread did something that kills it; raised inside the guest only."""
