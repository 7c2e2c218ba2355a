"""Glance's image API v2: the images of all sources, and images that callers bring."""
