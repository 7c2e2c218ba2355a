"""The pipeline from an image stream to a volume: one module for each stage, all bounded."""
