"""Decodes vdi images while their bytes arrive: the map of blocks first, then the file in order."""
