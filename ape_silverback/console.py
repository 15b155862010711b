"""An IPython extension that adds the name ``silverback`` to ``ape console``: what this package has for code.

Ape's own plugins can't add names to the console; an extension that the project's ``ape-config.yaml`` names can::

    console:
      plugins: [ape_silverback.console]
"""

from __future__ import annotations

from typing import Any


def load_ipython_extension(shell: Any) -> None:
    """Add the name, as IPython asks an extension to."""
    import ape_silverback

    shell.push({"silverback": ape_silverback}, interactive=False)
