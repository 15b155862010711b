"""Payment streams: whether they are what a platform claims, and how they are made, extended and cancelled."""
