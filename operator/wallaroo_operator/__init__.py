"""The operator: keeps what Kubernetes runs the same as what a WallarooApp asks for.

Each application is reconciled by itself, from what the API server and its coordinator answer then
(`observe`), by a pure decision (`decide`) that is carried out (`act`) one thing at a time. Nothing
is remembered that matters: the operator may be killed at any line and goes on.
"""
