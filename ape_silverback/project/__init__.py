"""The Ape project: its bots, and where each value of theirs comes from."""
