"""The formats in which records can be stored."""
