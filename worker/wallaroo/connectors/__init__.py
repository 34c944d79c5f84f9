"""Sources and sinks, one module each: the config that a user writes, and what it opens."""
