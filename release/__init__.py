"""Tools for a release: see `make lock`, `make audit` and `make release`."""
