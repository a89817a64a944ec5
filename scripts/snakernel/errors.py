"""The one error that a person is meant to read."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something that the user can put right, told in one sentence.

    The message names the file or key, the offending value and what is allowed; it is printed without a traceback.
    """


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's main function and exit: 0 when done, 1 with one line on stderr for a :class:`UserError`.

    Any other exception keeps its traceback: it is a fault of ours, not of the user.
    """
    try:
        code = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        # The machine's fault, which a person must put right: the disk is full or must not be written to.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        print(f"error: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(code or 0)
