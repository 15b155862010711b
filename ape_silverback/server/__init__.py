"""The local cluster, server side: the cluster's HTTP surface over SQLite, and the bots' processes."""
