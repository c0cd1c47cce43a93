//! What a whole desk stands on goes away and comes back: RabbitMQ, the
//! database, room on the disk. Nothing that was accepted is lost, everybody is
//! told, and all of it heals by itself. And the desk is told to stop.

mod broker;
mod desk;
mod stop;
mod store;
