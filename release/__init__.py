"""What makes a release: see `make lock`, `make audit` and `make release`."""
