//! Clients that are kept apart from all others.

use crate::config::{option::section, value::Limit};

section! {
    /// Clients that are kept apart from all others.
    pub struct Tenant {
        /// What logs, tokens and programs call it. Required.
        name: String = String::new();
        /// What stands before every topic of its clients, who do not see it; clients of no tenant do. No tenant's may begin with another's.
        /// Rules and programs that are asked see topics with it. Default: absent, the name and a slash.
        /// Cost: a copy of each topic that they publish to.
        mount_point: Option<String> = None;
        /// Everybody who comes by these listeners. Who would belong to two tenants is refused.
        listeners: Vec<String> = Vec::new();
        /// Users by name, or by how it begins or ends: `"site-a-*"`.
        users: Vec<String> = Vec::new();
        /// Whoever shows a certificate with such a common name or alternative name: `"*.site-a.example"`.
        certificates: Vec<String> = Vec::new();
        /// Connections of all its clients at once; those beyond are refused (0x97). Cost: none.
        connections_max: Limit = Limit::UNLIMITED, in Limit(1) => Limit::UNLIMITED;
        /// Sessions of all its clients, with and without a connection. Cost: none.
        sessions_max: Limit = Limit::UNLIMITED, in Limit(1) => Limit::UNLIMITED;
        /// Subscriptions of all its sessions; those beyond are refused (0x97, older: 0x80). Cost: none.
        subscriptions_max: Limit = Limit::UNLIMITED, in Limit(1) => Limit::UNLIMITED;
        /// Retained messages below its mount point, whoever publishes them; those beyond are refused (0x97, older: disconnected), and what is
        /// there stays. Cost: none.
        retained_messages_max: Limit = Limit::UNLIMITED, in Limit(1) => Limit::UNLIMITED;
        /// The same in bytes: topics, payloads and properties, with about 200 for each message. Cost: none.
        retained_bytes_max: Limit = Limit::UNLIMITED, in Limit(1) => Limit::UNLIMITED;
    }
}
