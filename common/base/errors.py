"""The one exception whose message is meant for the person at the keyboard."""


class UserError(Exception):
    """A mistake or a fault that the user can mend.

    The message is one line that names the key, the value and what is valid. `run.py` prints it
    without a traceback and exits with code 1.
    """
