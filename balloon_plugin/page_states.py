"""The states of pages that lie together: how they change, and their saved form.

Knows nothing of RAM, nor of what a state means. The saved form is made anew for a chunk
in which something changed, and never for the others, so that saving costs what a change
costs, however many pieces the balloon is in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from balloon_plugin.events import Run

__all__ = [
    "CHUNK",
    "CHUNK_SHIFT",
    "GIVEN_BACK",
    "IN",
    "OUT",
    "members",
    "pack",
    "paint",
    "repaint",
    "unpack",
]

CHUNK_SHIFT: Final = 15
"""Bits of a page number that are its place in a chunk."""

CHUNK: Final = 1 << CHUNK_SHIFT
"""Pages whose states are kept together, one byte each: 32 KiB for 128 MiB of RAM.

Small beside the memory that it stands for, large beside a batch (256 pages): nearly
every run lies in one.
"""

OUT: Final = 0
"""The driver's own."""

IN: Final = 1
"""In the balloon."""

GIVEN_BACK: Final = 2
"""In the balloon, and given back to the host."""

_BLOCK_SHIFT: Final = 9
_BLOCK: Final = 1 << _BLOCK_SHIFT
"""Pages whose states are saved together, in a digit each, or in one for all.

What a batch changes costs as many digits at the least, so that a block is not much
larger than a batch; in a large balloon nearly all blocks are of one digit, which should
not be many.
"""

_BLOCKS: Final = CHUNK // _BLOCK
_NAMES: Final = tuple(str(number) for number in range(_BLOCKS))
_NUMBER: Final = re.compile("0|[1-9][0-9]{0,11}")
_DIGITS: Final = bytes.maketrans(bytes([OUT, IN, GIVEN_BACK]), b"012")
_STATES: Final = bytes.maketrans(b"012", bytes([OUT, IN, GIVEN_BACK]))
_UNIFORM: Final = {digit: digit * _BLOCK for digit in "012"}
_MIXED: Final = re.compile(f"[012]{{{_BLOCK}}}")


def pack(chunk: bytearray) -> dict[str, str]:
    """Return what is saved of a chunk: by number the blocks that are not wholly out."""
    text = chunk.translate(_DIGITS).decode()
    form = {}
    for number, name in enumerate(_NAMES):
        block = text[number << _BLOCK_SHIFT : (number + 1) << _BLOCK_SHIFT]
        digit = block[0]
        if block != _UNIFORM[digit]:
            form[name] = block
        elif digit != "0":
            form[name] = digit
    return form


def unpack(form: object) -> bytearray:
    """Return the chunk that was saved.

    :raises ValueError: if it is damaged.
    """
    chunk = bytearray(CHUNK)
    for number, block in members(form):
        if number >= _BLOCKS:
            message = f"there is no block {number} in a chunk of pages"
            raise ValueError(message)
        start = number << _BLOCK_SHIFT
        chunk[start : start + _BLOCK] = _digits(block).encode().translate(_STATES)
    return chunk


def members(form: object) -> Iterator[tuple[int, object]]:
    """Yield the members of a saved object with the numbers that are their names.

    :raises ValueError: if it is none.
    """
    if not isinstance(form, dict):
        message = "chunks of pages are no object"
        raise ValueError(message)  # noqa: TRY004 - a file is damaged, no code
    for name, member in form.items():
        if not isinstance(name, str) or not _NUMBER.fullmatch(name):
            message = f"{name!r:.40} is no number of a part of chunks of pages"
            raise ValueError(message)
        yield int(name), member


def _digits(block: object) -> str:
    """Return a digit for each page of a saved block."""
    if isinstance(block, str):
        if block in _UNIFORM:
            return _UNIFORM[block]
        if _MIXED.fullmatch(block):
            return block
    message = f"a block of chunks of pages is neither one digit nor {_BLOCK}"
    raise ValueError(message)


# --- the states of many ---------------------------------------------------------------

_AS_BYTES: Final = tuple(bytes([state]) for state in (OUT, IN, GIVEN_BACK))

_TURNED: Final = {
    (old, new): bytes.maketrans(_AS_BYTES[old], _AS_BYTES[new])
    for old in (OUT, IN, GIVEN_BACK)
    for new in (OUT, IN, GIVEN_BACK)
}
"""Tables for ``translate``, which takes a tenth of the time that ``replace`` does."""

# In a scattered batch nearly all runs are single pages, for which an item of the chunk
# takes a sixth of the time that a slice does.


def paint(
    chunk: bytearray, base: int, runs: Sequence[Run], state: int
) -> tuple[int, int]:
    """Set the state of pages; return how many were ballooned, and given back.

    :param base: number of the page that is first in the chunk.
    :param runs: of pages that are all in it.
    """
    ballooned = given_back = 0
    for page, count in runs:
        if count == 1:
            before = chunk[page - base]
            chunk[page - base] = state
            if before:  # nearly never
                ballooned += 1
                given_back += before == GIVEN_BACK
        else:
            start, end = page - base, page - base + count
            ballooned += count - chunk.count(OUT, start, end)
            given_back += chunk.count(GIVEN_BACK, start, end)
            chunk[start:end] = _AS_BYTES[state] * count
    return ballooned, given_back


def repaint(
    chunk: bytearray, base: int, runs: Sequence[Run], old: int, new: int
) -> int:
    """Set the pages in one state to another; return how many they are.

    :param base: number of the page that is first in the chunk.
    :param runs: of pages that are all in it.
    """
    turned = _TURNED[old, new]
    repainted = 0
    for page, count in runs:
        if count == 1:
            if chunk[page - base] == old:
                chunk[page - base] = new
                repainted += 1
        else:
            start = page - base
            part = chunk[start : start + count]
            repainted += part.count(old)
            chunk[start : start + count] = part.translate(turned)
    return repainted
