"""librdkafka's mock cluster, which lets errors be injected and brokers go away and come back."""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka

PRODUCE = 0
MSG_SIZE_TOO_LARGE = 10
TOPIC_AUTHORIZATION_FAILED = 29
NOT_ENOUGH_REPLICAS = 19
REQUEST_TIMED_OUT = 7


class Cluster:
    def __init__(self, library: ctypes.CDLL, handle: int) -> None:
        self._library, self._handle = library, ctypes.c_void_p(handle)
        self.brokers = library.rd_kafka_mock_cluster_bootstraps(self._handle).decode()

    def fail(self, codes: Sequence[int], api: int = PRODUCE) -> None:
        """The next requests of kind `api` are answered with these error codes, one each."""
        array = (ctypes.c_int * len(codes))(*codes)
        self._library.rd_kafka_mock_push_request_errors_array(
            self._handle, ctypes.c_int16(api), ctypes.c_size_t(len(codes)), array
        )

    def topic(self, name: str, partitions: int) -> None:
        self._library.rd_kafka_mock_topic_create(self._handle, name.encode(), partitions, 1)

    def down(self) -> None:
        self._library.rd_kafka_mock_broker_set_down(self._handle, 1)

    def up(self) -> None:
        self._library.rd_kafka_mock_broker_set_up(self._handle, 1)


@contextmanager
def mock_cluster() -> Iterator[Cluster]:
    folder = Path(confluent_kafka.__file__).parent.with_name("confluent_kafka.libs")
    library = ctypes.CDLL(str(next(folder.glob("librdkafka*"))))
    library.rd_kafka_conf_new.restype = ctypes.c_void_p
    library.rd_kafka_new.restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    error = ctypes.create_string_buffer(512)
    conf = ctypes.c_void_p(library.rd_kafka_conf_new())
    client = ctypes.c_void_p(library.rd_kafka_new(0, conf, error, ctypes.c_size_t(512)))
    assert client.value, error.value
    handle = library.rd_kafka_mock_cluster_new(client, 1)
    try:
        yield Cluster(library, handle)
    finally:
        library.rd_kafka_mock_cluster_destroy(ctypes.c_void_p(handle))
        library.rd_kafka_destroy(client)
