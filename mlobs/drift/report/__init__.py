"""The comparison of two tables as a page for people: one file, nothing loaded from elsewhere."""
