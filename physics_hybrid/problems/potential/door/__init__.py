"""The user's door to the potential: bodies, fields, lead fields. Nothing here needs a training."""
