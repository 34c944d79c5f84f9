"""What runs inside a worker: stages of fused steps, exchanges between them, barriers.

No sockets, no clocks, no threads: a runtime hands in links and connectors and calls `step`.
"""
