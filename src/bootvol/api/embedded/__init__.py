"""The identity API, for use without OpenStack, and the image API."""
