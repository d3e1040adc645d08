"""Tables and figures that every problem shares."""
