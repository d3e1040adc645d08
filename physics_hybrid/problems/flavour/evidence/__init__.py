"""What measures the flavour closure: the tables of its page."""
