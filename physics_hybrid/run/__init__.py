"""From a configuration to a folder: training, evaluation, and where numbers come from."""
