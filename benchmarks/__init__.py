"""The experiment: data, budgets, and the measured cells."""
