"""Where profiles are taken when one process is too small: here in a pool, or on a Spark cluster.

An engine only profiles; merging and scoring always happen here (`ledger`).
"""
