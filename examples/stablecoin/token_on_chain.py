"""The stablecoin on the chain that a bot runs on."""

import json
import os

from ape import chain, project


def stablecoin():
    """Return the contract; STABLECOIN_ADDRESSES is JSON of ``ecosystem:network`` → address."""
    addresses = json.loads(os.environ["STABLECOIN_ADDRESSES"])
    network = chain.provider.network
    return project.Stablecoin.at(addresses[f"{network.ecosystem.name}:{network.name}"])
