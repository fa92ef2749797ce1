import sys

from semantic_parrot.core.engine.process import main

sys.exit(main())
