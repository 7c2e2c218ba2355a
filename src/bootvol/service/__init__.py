"""The use cases: operations of callers on volumes and servers, and the resulting work."""
