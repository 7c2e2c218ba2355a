"""Serves volumes by NBD to hypervisors that cannot open them where they lie."""
