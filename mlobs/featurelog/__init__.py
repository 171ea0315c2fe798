"""Feature logs: what the model saw and said, masked, spooled and read back.

    offer(record) -> buffer -> mask -> blocks -> frames -> spool segments -> LogReader.poll -> columns

The writing half (`writer` and what it imports) runs in the serving process and needs msgspec alone; the
reading half (`reader`, `columns`) needs pyarrow and numpy. docs/feature-logs.md explains both.
"""
