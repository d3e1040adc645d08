"""The physics of fast flavour conversion, usable alone: no configuration, no training, no
network."""
