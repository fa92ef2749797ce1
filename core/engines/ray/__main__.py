"""python -m semantic_parrot.core.engines.ray: see placer.py."""

import sys

from semantic_parrot.core.engines.ray.placer import main

sys.exit(main())
