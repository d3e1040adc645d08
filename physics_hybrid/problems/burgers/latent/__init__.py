"""The simulator in a latent space that carries exact coarse means."""
