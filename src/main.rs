//! The program `sundew`: everything is in the library.

use std::process::ExitCode;

/// Frees and allocates on the thread that asks, without asking the others; measured in `tests/bench/NOTES.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sundew::cli::main()
}
