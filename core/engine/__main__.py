import os
import sys

from semantic_parrot.core.engine.process import main

code = main()
sys.stderr.flush()
os._exit(code)  # nothing is left to save, and taking torch down in good order takes a second
