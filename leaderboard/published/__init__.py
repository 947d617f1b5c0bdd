"""What others publish, and their attacks beside those of this suite."""
