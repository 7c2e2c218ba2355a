"""The pipeline from an image's stream to a volume: one stage a module, bounded and awaited."""
