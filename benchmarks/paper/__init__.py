"""Studies that only the paper needs: pytest benchmarks/paper."""
