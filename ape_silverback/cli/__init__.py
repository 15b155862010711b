"""``ape silverback …``."""

import click


@click.group()
def cli() -> None:
    """Deploy Silverback bots."""
