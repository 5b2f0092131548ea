"""The error and the warning that a script reports in one sentence, without a traceback."""


class UserError(ValueError):
    """One clear sentence for a person who gave a wrong flag, argument or file.

    Scripts print it and exit with status 2, without a traceback.
    """


class DamageWarning(UserWarning):
    """A stored file was damaged or lost; the message says what was done about it.

    Scripts print it as one sentence, without a source line.
    """
