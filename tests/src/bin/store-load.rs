//! `store-load DIR SEED STEPS`: a program to be recorded, which makes a store in DIR and changes it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "test support: a panic is how it reports")]

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [dir, seed, steps] = arguments.as_slice() else { std::process::exit(2) };
    vault_tests::store_load::run(dir.as_ref(), seed.parse().unwrap(), steps.parse().unwrap());
}
