"""What is solved for: limbs drawn at random, and a user's own segmentations."""
