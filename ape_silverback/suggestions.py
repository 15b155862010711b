"""What a mistyped name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], what: str = "known", most: int = 3) -> str:
    """Return the end of an error about an unknown name: the names near it, or all that there are.

    Args:
        name: as it was written.
        known: the names that there are.
        what: what introduces the list of all names.
        most: most names to suggest.
    """
    known = sorted(known)
    by_lower_case = {one.lower(): one for one in known}
    if near := difflib.get_close_matches(name.lower(), by_lower_case, n=most):
        return "did you mean " + " or ".join(f"'{by_lower_case[match]}'" for match in near) + "?"
    return f"{what}: {', '.join(known) or 'none'}"
