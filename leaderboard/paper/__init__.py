"""The case study of one paper: its numbers, claims and figures beside what was measured."""
