"""Connections for commands: warnings go to the terminal."""

from functools import partial

from ape_silverback import connection
from ape_silverback.cli.output import warn

connected = partial(connection.connected, warn=warn)
platform = partial(connection.platform, warn=warn)
