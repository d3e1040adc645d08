"""States before and after the instability: generated, or from a user's simulations."""
