"""Tempest, OpenStack's own test suite, against a daemon: its settings and its users."""
