"""Where tenant records live; imports no Django."""
