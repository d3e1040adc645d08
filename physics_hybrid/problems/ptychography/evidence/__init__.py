"""What measures ptychography."""
