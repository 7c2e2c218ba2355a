"""Nova v1.1 in HP's version of 2012, with the extension hp-bootable-volumes."""
