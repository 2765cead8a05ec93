//! Stories on real sockets: a broker embedded in this process on ports of its own, clients that send and expect packets byte by
//! byte. Each is told in the versions that it concerns, with one worker and with four.

#![allow(clippy::print_stderr, reason = "a failing story says in which setting it failed")]
#![allow(clippy::disallowed_methods, reason = "stories about time look at the clock")]

mod backend;
mod broker;
mod client;
mod streams;
mod wire;

mod abuse;
mod access;
mod authentication;
mod certificates;
mod command_line;
mod connect;
mod delivery;
mod devices;
mod hostile;
mod http_backend;
mod limits;
mod listeners;
mod malformed;
mod overload;
mod paging;
mod publish;
mod qos;
mod release;
mod retained;
mod scram;
mod session;
mod shared;
mod silence;
mod stopping;
mod subscribe;
mod sys;
mod tenants;
mod tokens;
mod will;
