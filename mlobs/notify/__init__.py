"""Alert -> incident -> page -> outbox -> channels: one incident, one page, never lost.

`desk.Desk` is the stage; `read` is what the web page, the commands and the demo may look at.
"""
