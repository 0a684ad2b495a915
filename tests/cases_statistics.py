"""Cases of losses on the statistics of pairs; see `cases`."""

from __future__ import annotations

from case import Case

CASES: list[Case] = []
