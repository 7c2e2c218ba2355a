"""Glance's image API v2, read only: the images of all sources."""
