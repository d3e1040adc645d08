"""What measures the latent simulator: the tables of its page."""
