"""Whether this process has a folder for temporary files, which Python and torch need for processes and compilation."""

import tempfile

NO_FOLDER = "there is no writable folder for temporary files: set TMPDIR to a folder that can be written"


def has_temporary_folder() -> bool:
    """Whether one of the folders that Python tries (TMPDIR, /tmp, ..., the current folder) is writable."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return False
    return True
