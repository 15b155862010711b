"""The version of this package, for the ``User-Agent`` of requests and for ``--version``."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("ape-silverback")
except PackageNotFoundError:  # a source tree that isn't installed
    __version__ = "0.0.0"
