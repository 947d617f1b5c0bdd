"""What the suite's own work costs, beside other tools."""
