"""Where the bots of the local cluster run."""
