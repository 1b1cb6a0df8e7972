"""Which policy a guest gets when a fleet is divided among several.

Pure, and a matter of names alone: whoever knows the guest's name, the shares and the
salt knows the policy, on every machine and at any time. Each guest draws a number for
each policy, by a hash, and the policy with the best of them has it (rendezvous hashing,
weighted). So guests that come and go move nobody, and a share that grows draws guests
from the other policies to that one, just as many as the new proportions need, and moves
none between the others.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import Final

from balloon_plugin.errors import PluginError

__all__ = ["Split"]

_ARM: Final = re.compile(
    # A policy with its options, which are option=value, and after it =share.
    r"([^:=,\s]+(?::[^=,]+=[^=,]+(?:,[^=,]+=[^=,]+)*)?)=(\d{1,9})(?:,(?=.)|$)"
)


@dataclass(frozen=True, slots=True)
class Split:
    """The shares of some policies.

    :ivar shares: policies with their options, and whole numbers: how much of the fleet
        each gets, beside the others. A policy with 0 gets nothing.
    :ivar salt: any text. Another one divides the fleet anew, independently.
    """

    shares: tuple[tuple[str, int], ...]
    salt: str = ""

    @classmethod
    def parse(cls, text: str, salt: str = "") -> Split:
        """Return the shares in ``evidence=90,probe:pages=32=10``.

        :raises PluginError: if there are none, or one policy has two.
        """
        shares = []
        end = 0
        while (arm := _ARM.match(text, end)) is not None:
            shares.append((arm[1], int(arm[2])))
            end = arm.end()
        twice = len(dict(shares)) < len(shares)
        if end < len(text) or twice or not any(share for _, share in shares):
            raise PluginError(
                f"{text!r} divides no fleet: write POLICY=SHARE,POLICY=SHARE with "
                "whole numbers, each policy once, as in evidence=90,probe=10"
            )
        return cls(tuple(shares), salt)

    def __str__(self) -> str:
        """Return the shares as :meth:`parse` takes them."""
        return ",".join(f"{policy}={share}" for policy, share in self.shares)

    def choose(self, guest: str) -> str:
        """Return the policy of a guest, by its name."""
        return max(
            (self._score(guest, policy, share), policy)
            for policy, share in self.shares
            if share
        )[1]

    def _score(self, guest: str, policy: str, share: int) -> float:
        """Return what a guest draws for a policy: the more its share, the better.

        Of independent ``u`` in (0, 1) the greatest ``u ** (1 / share)`` is that of each
        policy with a chance in proportion to its share; this is the logarithm of that.
        """
        # JSON, because names may hold whatever would separate them.
        drawn = json.dumps([self.salt, guest, policy]).encode()
        bits = int.from_bytes(hashlib.sha256(drawn).digest()[:8], "big")
        return math.log((bits + 0.5) / 2**64) / share
