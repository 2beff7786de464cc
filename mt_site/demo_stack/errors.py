class DemoError(Exception):
    """Something that the person at the terminal can act on; shown as one line."""


class Interrupted(Exception):
    """The demo was asked to stop."""
