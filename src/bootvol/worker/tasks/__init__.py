"""The kinds of work: one class for each, with the common base in :mod:`.task`."""
