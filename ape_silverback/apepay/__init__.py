"""Contracts that payment streams are made of, and JSON-RPC to read them. Knows neither Ape nor a cluster."""
