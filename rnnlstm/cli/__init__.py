"""What the commands share: arguments, help, Tab completion, exit codes, a sweep's progress in the terminal."""

import signal
import sys

_main = getattr(sys.modules["__main__"], "__spec__", None)
if (_main and _main.name.startswith("rnnlstm.")) or sys.argv[0].rpartition("/")[2].startswith("rnnlstm-"):
    # A command's first import: until `run_command` takes over, Ctrl-C ends it, as it should, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
