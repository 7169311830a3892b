"""Studies: one question, many runs, one table. See docs/studies.md."""
