"""The collector's `[kafka]` and `[limits]`, in the words of kafka_client.

Owns: the translation. Refuses to know: who opens a producer or asks a cluster.
"""

import math

from collector.config import Config, KafkaConfig
from kafka_client.config import ProducerConfig, SecurityConfig
from kafka_client.network.client_credentials import ClientCredentials, TokenFile
from kafka_client.security import TokenProvider

__all__ = ["producer_config"]


def producer_config(config: Config) -> ProducerConfig:
    """Return what `kafka_client.open_producer` and `kafka_client.admin.open_admin` take."""
    kafka, limits = config.kafka, config.limits
    return ProducerConfig(
        bootstrap_servers=kafka.bootstrap_servers,
        security=_security(kafka),
        compression=kafka.compression,
        linger_s=kafka.linger_s,
        queue_max_bytes=limits.queue_bytes,
        max_waiting_bytes=limits.waiting_bytes,
        in_flight_max_bytes=limits.in_flight_bytes,
        in_flight_max_bytes_per_partition=limits.in_flight_partition_bytes,
        produce_timeout_s=kafka.produce_timeout_s,
        request_timeout_s=kafka.request_timeout_s,
        delivery_timeout_s=kafka.delivery_timeout_s,
        # Sealed batches have no deadline of their own: they are bounded in number, and their end is waited for (rule
        # 5).
        batch_timeout_s=math.inf,
        close_grace_s=config.shutdown.drain_s,
    )


def _security(kafka: KafkaConfig) -> SecurityConfig:
    return SecurityConfig(
        protocol=kafka.security_protocol,
        ssl_cafile=kafka.ssl_cafile,
        ssl_certfile=kafka.ssl_certfile,
        ssl_keyfile=kafka.ssl_keyfile,
        ssl_keyfile_password=kafka.ssl_keyfile_password,
        ssl_check_hostname=kafka.ssl_check_hostname,
        sasl_mechanism=kafka.sasl_mechanism,
        sasl_username=kafka.sasl_username,
        sasl_password=kafka.sasl_password,
        sasl_password_file=kafka.sasl_password_file,
        sasl_oauth_token=_token_provider(kafka),
    )


def _token_provider(kafka: KafkaConfig) -> TokenProvider | None:
    if kafka.sasl_oauth_token_file is not None:
        return TokenFile(kafka.sasl_oauth_token_file)
    if kafka.sasl_oauth_token_endpoint_url is None:
        return None
    return ClientCredentials(
        token_endpoint_url=kafka.sasl_oauth_token_endpoint_url,
        client_id=kafka.sasl_oauth_client_id or "",
        client_secret=kafka.sasl_oauth_client_secret,
        client_secret_file=kafka.sasl_oauth_client_secret_file,
        scope=kafka.sasl_oauth_scope,
        ssl_cafile=kafka.sasl_oauth_ssl_cafile,
    )
