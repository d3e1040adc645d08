"""Where the start is uncertain: ensembles of what u becomes, from a few noisy means."""
