"""The rehearsal platform: workspaces and clusters that are paid for on a development chain."""
