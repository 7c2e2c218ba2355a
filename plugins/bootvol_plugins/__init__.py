"""First-party plugins.  They use nothing that a third-party plugin could not use."""
