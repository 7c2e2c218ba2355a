"""The HTTP API: dialects over one core, and nothing of the core itself."""
