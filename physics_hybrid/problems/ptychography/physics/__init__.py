"""Objects, probes, far fields, ePIE. Usable alone: no configuration, no network."""
