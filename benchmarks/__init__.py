"""Times our commands against the public ``silverback`` command line: ``make bench``."""
