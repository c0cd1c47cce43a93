//! The front end: Trunk builds `dist/`, and what goes over the wire is
//! compressed once, here.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::Path;

use crate::run::{Failed, cargo, in_root, root, run};

/// What `dist/` is made of.
const SOURCES: &[&str] = &[
    "app",
    "domain",
    "frontend",
    "protocol",
    "style",
    "index.html",
    "Trunk.toml",
    "Cargo.lock",
    "Cargo.toml",
];
const COMPRESSED: &[&str] = &["css", "js", "svg", "wasm"];

/// Builds it, unless it is up to date.
pub(crate) fn build(release: bool) -> Result<(), Failed> {
    let mut hasher = DefaultHasher::new();
    release.hash(&mut hasher);
    for source in SOURCES {
        hash(&root().join(source), &mut hasher)?;
    }
    let wanted = format!("{:016x}", hasher.finish());
    let stamp = root().join("target/front.stamp");
    let built = root().join("dist/index.html").exists();
    if built && fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    // On a fresh machine: Trunk is told not to ask anybody.
    cargo(&["fetch", "--locked", "--target", "wasm32-unknown-unknown"])?;
    let path = std::env::var("PATH").unwrap_or_default();
    let tools = root().join("end2end/node_modules/.bin");
    let mut trunk = in_root("trunk");
    trunk.args(["--config", "Trunk.toml", "build", "index.html", "--dist", "dist", "--offline"]);
    // Trunk reads NO_COLOR as a truth value and stumbles over others.
    trunk.env_remove("NO_COLOR").env("PATH", format!("{}:{path}", tools.display()));
    if release {
        trunk.arg("--release");
    }
    run(&mut trunk)?;
    compress(if release { 11 } else { 4 })?;
    Ok(fs::write(stamp, wanted)?)
}

fn hash(path: &Path, hasher: &mut DefaultHasher) -> Result<(), Failed> {
    if path.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        entries.sort();
        for entry in entries {
            hash(&entry, hasher)?;
        }
    } else {
        path.hash(hasher);
        fs::read(path)?.hash(hasher);
    }
    Ok(())
}

fn compress(quality: i32) -> Result<(), Failed> {
    for entry in fs::read_dir(root().join("dist"))? {
        let path = entry?.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if !COMPRESSED.contains(&ending) {
            continue;
        }
        let bytes = fs::read(&path)?;
        let params = brotli::enc::BrotliEncoderParams { quality, ..Default::default() };
        let mut small = Vec::new();
        brotli::BrotliCompress(&mut bytes.as_slice(), &mut small, &params)?;
        fs::write(path.with_extension(format!("{ending}.br")), small)?;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&bytes)?;
        fs::write(path.with_extension(format!("{ending}.gz")), gzip.finish()?)?;
    }
    Ok(())
}

/// How large the WebAssembly is, raw and over the wire.
pub(crate) fn sizes() -> Result<(), Failed> {
    for entry in fs::read_dir(root().join("dist"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if name.contains(".wasm") && !name.ends_with(".gz") {
            println!("{name}: {} KB", fs::metadata(&path)?.len() / 1000);
        }
    }
    Ok(())
}
