"""The demonstration that ``make demo`` runs, and the chain that it and the tests run on."""
