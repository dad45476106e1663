"""What all tests share."""

import os

from hypothesis import settings

# In CI a change is judged by the same examples each time; new ones are searched for on people's machines.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("people", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "people")
