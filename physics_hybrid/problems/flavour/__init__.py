"""The flavour closure: what neutrinos become after a fast flavour instability."""
