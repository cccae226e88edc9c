"""What the four scripts share. Each module imports only from those named before it:
files, backend, data, images, pretrained, distillation, evaluation, training, report, exits, command, export, texts,
predict."""


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one line: what is wrong, where (file and line), what was expected, what to do.
    A script prints it on standard error and ends with exit status 2.
    """


def reason(error):
    """The first line of what an exception says, or its name if it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)
