"""One file per key-value store."""
