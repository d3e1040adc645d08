"""The same hybrid step in two dimensions: advection and diffusion on a periodic square."""
