"""The way from the bytes of an image's file to their places on the disk, for all formats."""
