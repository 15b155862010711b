"""Logging in to the platform."""
