//! What only RabbitMQ can suffer.
