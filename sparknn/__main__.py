"""The file to hand to spark-submit: ``spark-submit sparknn/__main__.py train CONFIG.toml``.

Also ``python -m sparknn``. Everything it runs is imported from the package as installed, or as
sent with ``--py-files``; nothing is defined here, so nothing is pickled as part of ``__main__``.
"""

import sys
from pathlib import Path

# Run as a script, Python puts this file's folder first on the path, where `import core` or
# `import cli` would find our modules a second time, under the wrong name.
if not __package__ and sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    del sys.path[0]

from sparknn.cli import main

if __name__ == "__main__":
    sys.exit(main())
