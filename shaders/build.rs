//! Lists the shader files, so that a new kernel is a new file and nothing else.

use std::{env, fs, io::Write, path::Path};

fn main() -> std::io::Result<()> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("wgsl");
    let out = Path::new(&env::var("OUT_DIR").unwrap_or_default()).join("files.rs");
    let mut files = Vec::new();
    list(&root, "", &mut files)?;
    files.sort();
    let mut out = fs::File::create(out)?;
    writeln!(out, "/// Name (path below `wgsl/` without the ending) and text of every file.")?;
    writeln!(out, "static FILES: &[(&str, &str)] = &[")?;
    for name in files {
        let path = root.join(format!("{name}.wgsl"));
        writeln!(out, "    ({name:?}, include_str!({path:?})),")?;
    }
    writeln!(out, "];")
}

fn list(dir: &Path, prefix: &str, files: &mut Vec<String>) -> std::io::Result<()> {
    println!("cargo::rerun-if-changed={}", dir.display());
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{prefix}{name}/"), files)?;
        } else if let Some(stem) = name.strip_suffix(".wgsl") {
            files.push(format!("{prefix}{stem}"));
        }
    }
    Ok(())
}
