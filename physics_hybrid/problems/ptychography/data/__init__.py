"""Scans: simulated ones, and a user's own."""
