"""Decodes vmdk images in VMware's form for streams while their bytes arrive."""
