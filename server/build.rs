//! The built front end is part of the program: what changes there changes it.

use std::io;

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=../dist");
    println!("cargo:rerun-if-changed=build.rs");
    // The program finds its pages at the folder's full path, which has to be
    // there when it is compiled, be it before the first page is built.
    std::fs::create_dir_all("../dist")
}
