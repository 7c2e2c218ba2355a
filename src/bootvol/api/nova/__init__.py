"""Nova v1.1 as HP ran it in 2012, with the extension hp-bootable-volumes."""
