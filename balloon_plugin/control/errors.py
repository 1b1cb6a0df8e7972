"""The errors of QMP: a class for programs and a sentence for people."""

from __future__ import annotations

__all__ = ["CommandError"]


class CommandError(Exception):
    """A command that is answered with an error.

    :param desc: a sentence that says what to do.
    :param kind: QMP's class of the error: ``GenericError``, ``CommandNotFound``,
        ``DeviceNotActive`` or ``DeviceNotFound``.
    """

    def __init__(self, desc: str, kind: str = "GenericError") -> None:
        super().__init__(desc)
        self.kind = kind

    def as_dict(self) -> dict[str, str]:
        """Return the error as QMP writes it."""
        return {"class": self.kind, "desc": str(self)}
