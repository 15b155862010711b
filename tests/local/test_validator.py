"""The validator of rehearsed payments: what is shipped is what its source says, and what it says is a price."""

from __future__ import annotations
