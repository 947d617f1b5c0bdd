"""The experiment: datasets, their numbers, and the measured cells."""
