"""``python -m vlmodels``: what there is, and what it costs."""

import sys

from vlmodels.describe import main
from vlmodels.errors import UserError

try:
    main()
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
