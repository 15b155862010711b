"""The ``silverback:`` section: its models, and the light reader of it."""
