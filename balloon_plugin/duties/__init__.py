"""What a balloon does besides taking pages: one module for each queue of its own."""

from __future__ import annotations

__all__: list[str] = []
