"""Connections for commands: warnings go to the terminal."""

from functools import partial

from ape_silverback import connect
from ape_silverback.cli.output import warn

connected = partial(connect.connected, warn=warn)
platform = partial(connect.platform, warn=warn)
