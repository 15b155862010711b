"""Images of bots, for clusters that run images: what goes into one, and the engine that builds and pushes it."""
