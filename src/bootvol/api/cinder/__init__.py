"""The dialect of Cinder v3, the Block Storage API of today's clients."""
