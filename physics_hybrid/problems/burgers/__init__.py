"""Evolution problems, first Burgers: a coarse stepper, and a network that adds what it loses."""
