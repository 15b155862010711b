"""Compiles the validator of rehearsed payments: ``python scripts/compile_validator.py``. A test compares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[1] / "ape_silverback" / "apepay" / "fixed_rate.vy"
ARTEFACT = SOURCE.with_suffix(".json")


def compiled() -> dict[str, Any]:
    """Compile the source; return what is shipped beside it."""
    import vyper

    made = vyper.compile_code(SOURCE.read_text(encoding="utf8"), output_formats=["abi", "bytecode"])
    return {"compiler": f"vyper {vyper.__long_version__}", "abi": made["abi"], "bytecode": made["bytecode"]}


def main() -> None:
    """Write the artefact."""
    ARTEFACT.write_text(f"{json.dumps(compiled(), indent=2)}\n", encoding="utf8")


if __name__ == "__main__":
    main()
