//! Compiles the `.proto` files of the Kubernetes API to one descriptor set, which the crate embeds.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use protox::prost::Message as _;

const ROOT: &str = "proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    let mut files = Vec::new();
    collect(Path::new(ROOT), &mut files)?;
    files.sort();
    let descriptors = protox::compile(files, [ROOT])?;
    let out = PathBuf::from(env::var("OUT_DIR")?).join("kubernetes.binpb");
    fs::write(out, descriptors.encode_to_vec())?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            files.push(path);
        }
    }
    Ok(())
}
