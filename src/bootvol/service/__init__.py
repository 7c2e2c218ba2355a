"""The use cases: what callers may do with volumes, and the work that follows from it."""
