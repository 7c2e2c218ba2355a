"""Serves volumes by NBD to hypervisors that cannot open the volumes on the backend."""
