"""The strict fake and Apache Kafka, asked the same: one module a theme, each a table of scenarios."""
