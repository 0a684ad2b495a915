"""Goldens of the InfoNCE family as calls; see `golden_map`."""

from __future__ import annotations

from collections.abc import Callable

from golden_calls import Call
from golden_pairs import Entry

BUILDERS: dict[str, Callable[[Entry], Call]] = {}
LISTED: dict[str, str] = {}
