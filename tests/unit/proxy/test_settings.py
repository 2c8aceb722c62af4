"""What the data plane is told: values that follow from other keys where no key sets them."""

from soth_mitm.config import MitmConfig
from soth_mitm.proxy.settings import queue_capacity, queue_wait_ms


def test_the_queue_of_a_flow_follows_from_other_keys() -> None:
    config = MitmConfig()
    config.interception.destinations.append("a.example:443")
    assert (queue_capacity(config), queue_wait_ms(config)) == (128, 15_000)

    config.connection_pool.max_connections_per_host = 200
    config.interception.destinations.append("b.example:443")
    assert queue_capacity(config) == 400

    config.connection_pool.max_connections_per_host = 10_000
    config.handler.response_timeout_ms = 7
    assert (queue_capacity(config), queue_wait_ms(config)) == (1024, 7)

    config.flow_runtime.dispatch_queue_capacity = 1
    config.flow_runtime.dispatch_queue_send_timeout_ms = 2
    assert (queue_capacity(config), queue_wait_ms(config)) == (1, 2)
