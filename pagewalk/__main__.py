"""`python -m pagewalk`."""

import sys

from pagewalk.cli import main

sys.exit(main())
