"""Deploy Silverback bots from an Ape project."""
