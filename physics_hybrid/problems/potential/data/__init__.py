"""Solved samples: what one is, how files are read and checked, how they are made."""
