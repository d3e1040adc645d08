"""The training loop and what belongs to it. It knows no problem."""
