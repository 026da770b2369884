"""Start of ``python -m vlmodels``, which lists methods and backbones and prints what they cost."""

import sys

from vlmodels.command import main
from vlmodels.errors import UserError

try:
    main()
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
