"""A folder for each problem. No problem imports another."""
