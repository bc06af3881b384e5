"""The command line: `blip3o-mini COMMAND`, also `python -m blip3o_mini COMMAND`.

Nothing heavy is imported until a command runs, so that `--help` answers at once. Whatever a user can
get wrong ends as one sentence on stderr and exit code 2; code 130 means stopped by Ctrl-C.
Set BLIP3O_MINI_DEBUG=1 to see the traceback behind a sentence.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from . import chat, conversion, data, learning, pictures, reports, words, workshop
from .arguments import PROGRAM, Parser

DESCRIPTION = """\
BLIP3-o in small: one model that answers, describes, draws, edits and talks.
New here? Run "blip3o-mini start"; it shows all five tasks in a minute."""

EPILOG = """\
examples:
  blip3o-mini start
  blip3o-mini generate --prompt "a red circle to the left of a blue square" --num-images 4 --out out
  blip3o-mini COMMAND --help

exit codes: 0 done, 1 a comparison failed, 2 something in the request is wrong, 130 stopped by Ctrl-C.
BLIP3O_MINI_DEBUG=1 shows the traceback behind an error."""

FULL_DISK = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}


def build_parser() -> Parser:
    """All commands, in the order a newcomer needs them."""
    parser = Parser(prog=PROGRAM, description=DESCRIPTION, epilog=EPILOG)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", parser_class=Parser)
    reports.add_start(commands)
    pictures.add(commands)
    words.add(commands)
    chat.add(commands)
    learning.add(commands)
    data.add(commands)
    reports.add(commands)
    conversion.add(commands)
    workshop.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a console that cannot show "→" shows "?"
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) went away: end quietly, also when Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        message = sentence(error)
        if message is None or os.environ.get("BLIP3O_MINI_DEBUG"):
            raise
        print(f"{PROGRAM}: {message}", file=sys.stderr)
        return 2


def _run(argv: Sequence[str]) -> int:
    parser = build_parser()
    if not argv:
        parser.print_help()
        return 0
    try:
        args = parser.parse_args(argv)
    except SystemExit as done:  # --help has printed
        return done.code or 0
    return args.run(args) or 0


def sentence(error: Exception) -> str | None:
    """The one sentence for an error that the user can mend; None for a bug in the program."""
    if isinstance(error, OSError) and error.errno:
        place = f"{error.filename}: " if error.filename else ""
        remedy = "free some space" if error.errno in FULL_DISK else "check the path and its access rights"
        return f"{place}{(error.strerror or 'input or output failed').lower()}; {remedy}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "there is not enough memory for this; ask for fewer images, a smaller preset or --device cpu"
    if isinstance(error, (ValueError, OSError, FloatingPointError)):
        return " ".join(str(error).split()) or f"something went wrong ({type(error).__name__})"
    return None
