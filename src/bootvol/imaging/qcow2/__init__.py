"""Decodes qcow2 images while their bytes arrive: the tables first, then the file in order."""
