"""Cases of the InfoNCE family; see `cases`."""

from __future__ import annotations

from case import Case

CASES: list[Case] = []
