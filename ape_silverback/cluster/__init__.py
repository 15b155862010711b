"""The client side: speaks the HTTP API of a cluster and of the platform. Knows no Ape project."""
