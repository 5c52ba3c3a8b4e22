"""The one exception that users see: bad input, said in one line (what, where, what to do)."""


class SymptomChatError(Exception):
    """Bad input. Its message is one complete line; commands print it and leave with exit code 2."""
