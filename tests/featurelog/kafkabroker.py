"""A broker in a process of its own that can be ended and started again on its port and data."""

import signal
from pathlib import Path

from tests.servers import Process, free_port, need


class Broker:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.process = folder, free_port(), None
        self.address = f"127.0.0.1:{self.port}"

    def start(self) -> None:
        options = f"start --only kafka --kafka-port {self.port} --data-dir".split()
        self.process = Process([need("kafka"), *options, self.folder / "data"], self.folder)
        self.process.logged(r"kafka\s+(127\.0\.0\.1:\d+)")

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.kill(how)
            self.process.popen.wait(20)
            self.process = None

    def topic(self, partitions: int) -> None:
        from confluent_kafka.admin import AdminClient, NewTopic

        admin = AdminClient({"bootstrap.servers": self.address})
        admin.create_topics([NewTopic("calls", partitions)])["calls"].result(20)
