"""What workers and their coordinator agree on, as state machines: events in, effects out.

No I/O, no clock, no threads: the runtime carries the effects out.
"""
