//! How much clients may take.

use crate::config::{
    memory::Memory,
    option::{choice, section},
    value::{Bytes, Limit},
};

section! {
    /// How much clients may take.
    pub struct Limits {
        /// Memory of the whole broker: `"auto"` is three quarters of the machine's, or of its cgroup's if that is less. From seven eighths of it, messages
        /// at QoS 0 wait for nobody and queues that are on disk leave memory; at all of it, what would have to be kept is refused to who sends it: QoS 1 and 2 for who is
        /// away or slow, larger retained messages, new sessions and subscriptions (0x97, 0x89; older clients are disconnected). What was acknowledged stays. Cost:
        /// it is looked at ten times a second, and after each 16 MiB received.
        memory_max: Memory = Memory::Auto, in Memory::Fixed(Bytes(16 << 20)) => Memory::Unlimited;
        /// Largest packet that is accepted; announced to MQTT 5 clients, beyond it 0x95 and the connection ends.
        /// Cost: a connection may hold one such packet while it arrives.
        packet_bytes_max: Bytes = Bytes(32 << 20), in Bytes(32) => Bytes(268_435_460);
        /// Largest packet of a client that has not entered: CONNECT and what belongs to it; beyond it 0x95 and the connection ends.
        /// Cost: a stranger may hold one such packet while it arrives. Over WebSocket it is the largest message, too, which is never over 1 MiB.
        connect_bytes_max: Bytes = Bytes(128 << 10), in Bytes(1024) => Bytes(268_435_460);
        /// Bytes of unfinished packets of all clients that have not entered, and of each CONNECT while it is authenticated; who would hold
        /// more is closed. TLS has its own buffers, some 20 KiB for each that is in its handshake. Cost: so much memory at most.
        unauthenticated_bytes_max: Bytes = Bytes(64 << 20), in Bytes(64 << 10) => Bytes(1 << 40);
        /// Longest payload of a will; beyond it 0x95. Cost: kept while its client is connected.
        will_bytes_max: u16 = 65_535;
        /// Longest client id. Cost: kept once a session.
        client_id_bytes_max: u16 = 512, in 23 => 65_535;
        /// Levels (parts between `/`) of a topic or filter. Cost: a node of the tree of subscriptions each, about 100 bytes.
        topic_levels_max: u16 = 200, in 8 => 65_535;
        /// Longest topic or filter, bytes; a longer one ends the connection (0x90, 0x8F). Default: the longest of MQTT; few need 1,000.
        /// Cost: each that is subscribed to or retained is kept.
        topic_bytes_max: u16 = 65_535, in 64 => 65_535;
        /// User properties in one packet of MQTT 5; beyond it 0x97 and the connection ends. Cost: they go along with a message, with every copy.
        user_properties_max: u16 = 1000;
        /// Topic filters in one SUBSCRIBE or UNSUBSCRIBE. Cost: about 60 bytes each while it is handled.
        filters_per_packet_max: u32 = 65_536, in 1 => 67_108_864;
        /// Connections at once through all listeners; never more than the descriptors the system allows, less a reserve.
        /// Cost: a file descriptor and 2 to 4 KiB each.
        connections_max: Limit = Limit::UNLIMITED;
        /// Sessions at once, with and without a connection. Cost: about 1 KiB each, and what is queued.
        sessions_max: Limit = Limit(1_000_000), in Limit(1) => Limit::UNLIMITED;
        /// Subscriptions of all sessions. Cost: 100 to 200 bytes each.
        subscriptions_max: Limit = Limit(10_000_000), in Limit(1) => Limit::UNLIMITED;
        /// Subscriptions of one session. Cost: as above.
        subscriptions_per_session_max: Limit = Limit(100_000), in Limit(1) => Limit::UNLIMITED;
        /// Retained messages. Cost: topic, payload and about 150 bytes each.
        retained_messages_max: Limit = Limit(1_000_000);
        /// Bytes of all retained messages. Cost: memory.
        retained_bytes_max: Bytes = Bytes(1 << 30);
        /// Wills that wait for their Will Delay Interval; beyond, a will is published without its delay. Cost: the message each.
        pending_wills_max: Limit = Limit(100_000);
    }
}

choice! {
    /// What becomes of a client that publishes faster than it may.
    pub enum RatePolicy {
        /// It is not read for a while.
        Delay = "delay",
        /// What is too much is dropped or refused.
        Drop = "drop",
        /// It is disconnected.
        Disconnect = "disconnect",
    }
}
