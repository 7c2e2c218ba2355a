"""The HTTP API: several dialects over one core. No code of the core is here."""
