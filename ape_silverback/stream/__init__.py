"""Payment streams: whether they are what a platform says, and how they are made, extended and cancelled."""
