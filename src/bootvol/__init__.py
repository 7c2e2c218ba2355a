"""bootvol turns an operating-system image into a persistent, bootable block volume."""
