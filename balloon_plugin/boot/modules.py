"""Kernel modules in the folder of one kernel: which are needed, in what order.

Knows ``modules.dep`` and ``modules.builtin`` as depmod writes them, and the ways in
which distributions compress modules. Names are compared as the kernel does it: ``-`` is
``_``.
"""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from balloon_plugin.errors import HostError
from balloon_plugin.zstd import find_zstd

__all__ = ["Module", "load_modules"]


def _decompress_zstd(data: bytes) -> bytes:
    zstd = find_zstd()
    try:
        unpacked: bytes = zstd.decompress(data)
    except zstd.ZstdError as error:
        raise OSError(str(error)) from error
    return unpacked


_UNPACK: Final[dict[str, Callable[[bytes], bytes]]] = {
    ".ko": bytes,
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
    ".zst": _decompress_zstd,
}


@dataclass(frozen=True, slots=True)
class Module:
    """A kernel module, unpacked.

    :ivar name: as the kernel calls it (``virtio_balloon``).
    :ivar data: the content of the ``.ko`` file.
    """

    name: str
    data: bytes


def load_modules(folder: Path, name: str) -> list[Module]:
    """Return the module ``name`` and those that it depends on, in order of loading.

    :param folder: the kernel's own, such as ``/lib/modules/6.1.0``.
    :returns: the module itself last; none if it is built into the kernel.
    :raises HostError: if the kernel has no such module or it cannot be read.
    """
    if name in map(_name, _read(folder / "modules.builtin").split()):
        return []
    for line in _read(folder / "modules.dep").splitlines():
        path, _, needed = line.partition(":")
        if _name(path) == name:
            # Listed nearest first: each stands before those that it needs in turn.
            order = [*reversed(needed.split()), path]
            return [_load(folder / path) for path in order]
    raise HostError(f"the kernel of {folder} has no module {name}: use one that has it")


def _name(path: str) -> str:
    return Path(path).name.partition(".")[0].replace("-", "_")


def _load(path: Path) -> Module:
    unpack = _UNPACK.get(path.suffix)
    if unpack is None:
        raise HostError(
            f"{path} is compressed in a way that Python cannot read: "
            "unpack it beside itself and run depmod"
        )
    try:
        return Module(_name(str(path)), unpack(path.read_bytes()))
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise HostError(f"{path} cannot be read: {error}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise HostError(
            f"{path} cannot be read ({error.strerror}): "
            "install the modules of this kernel"
        ) from error
