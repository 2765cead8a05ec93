//! A broker inside a program: starts one on a port of the system's choice, and stops it when Enter is pressed.
//!
//! `cargo run --example embed`, or `cargo run --example embed -- 1884` for that port

#![allow(clippy::print_stdout)] // an example speaks to the one who runs it

use std::io;

use sundew::broker::Parts;
use sundew::server::{Server, ServerOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = ServerOptions::default();
    let port = std::env::args().nth(1).unwrap_or_else(|| "0".to_owned());
    options.listeners[0].0.addresses = vec![sundew::transport::options::ListenAddress::Tcp(
        format!("127.0.0.1:{port}").parse()?,
    )];
    let server = Server::start(options, Parts::default())?;
    println!("listening on {:?}; Enter stops", server.addresses());
    io::stdin().read_line(&mut String::new())?;
    println!("all clients gone in time: {}", server.stop());
    Ok(())
}
