//! Names of files as systems allow them: other scripts, bytes that are no Unicode, paths longer than Windows's old
//! limit, devices.

mod cli_support;

use cli_support::tiny_gguf;
use handmill_runtime::format::gguf::GgufWriter;
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Exit code, standard output and standard error of `handmill` with these arguments and the path behind them.
fn run(args: &[&str], path: &Path) -> (Option<i32>, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_handmill")).args(args).arg(path).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (out.status.code(), text(out.stdout), text(out.stderr))
}

/// A small checkpoint of the repository's own.
fn fixture() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/families/llama2"].iter().collect()
}

/// A name that is not Unicode, and ends in `end`; none where the system has no such names.
fn not_unicode(end: &str) -> Option<OsString> {
    #[cfg(target_os = "linux")]
    let name = Some(std::os::unix::ffi::OsStringExt::from_vec([&b"mod\xe8le"[..], end.as_bytes()].concat()));
    // Half of a pair, which Windows stores like any other number.
    #[cfg(windows)]
    let name = Some(std::os::windows::ffi::OsStringExt::from_wide(
        &"mod".encode_utf16().chain([0xd800]).chain(end.encode_utf16()).collect::<Vec<u16>>(),
    ));
    #[cfg(not(any(target_os = "linux", windows)))]
    let (name, _) = (None, end);
    name
}

/// Whether wine runs this: its files are Linux's, whose names have no half pairs.
fn is_wine() -> bool {
    cfg!(windows) && std::env::var_os("WINEPREFIX").is_some()
}

#[track_caller]
fn assert_inspects(path: &Path) {
    let (code, stdout, stderr) = run(&["inspect"], path);
    assert_eq!(code, Some(0), "{}: {stderr}", path.display());
    assert!(stdout.contains("(gguf"), "{stdout}");
}

#[test]
fn a_model_is_found_by_any_name_that_a_file_can_have() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["модель.gguf", "模型 1.gguf", "modèle & co.gguf", "👩‍💻.gguf"].map(OsString::from);
    for name in names.into_iter().chain(not_unicode(".gguf").filter(|_| !is_wine())) {
        let path = folder.path().join(&name);
        fs::write(&path, tiny_gguf(1000)).unwrap();
        assert_inspects(&path);
        fs::remove_file(&path).unwrap();
        let (code, stdout, stderr) = run(&["inspect"], &path);
        assert_eq!((code, &stdout[..]), (Some(1), ""), "{name:?}");
        assert!(stderr.contains("error: ") && !stderr.contains("UTF-8"), "{name:?}: {stderr}");
    }
}

#[test]
fn parts_of_a_split_model_are_found_by_a_name_that_is_not_unicode() {
    let Some(_) = not_unicode("").filter(|_| !is_wine()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let part = |i: u16| folder.path().join(not_unicode(&format!("-{:05}-of-00002.gguf", i + 1)).unwrap());
    for i in 0..2u16 {
        let mut file = GgufWriter::new();
        file.put("general.architecture", "llama");
        file.put("split.no", i).put("split.count", 2u16).put("split.tensors.count", 0i32);
        fs::write(part(i), file.to_bytes()).unwrap();
    }
    assert_inspects(&part(0));
    assert_inspects(&part(1));
}

#[test]
fn a_path_may_be_longer_than_260_characters() {
    let folder = tempfile::tempdir().unwrap();
    let deep: PathBuf =
        (0..6).fold(folder.path().to_owned(), |path, _| path.join("a folder with a long name".repeat(2)));
    assert!(deep.as_os_str().len() > 300);
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("x.gguf"), tiny_gguf(1000)).unwrap();
    assert_inspects(&deep.join("x.gguf"));
    // An option's file and a model's, both long.
    let out = deep.join("x.npy");
    let args = ["logits", "--backend", "cpu", "--tokens", "1", "--out", out.to_str().unwrap()];
    let (code, _, stderr) = run(&args, &fixture());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(fs::metadata(&out).unwrap().len() > 100);
}

#[test]
fn the_device_that_keeps_nothing_takes_results() {
    let nothing = if cfg!(windows) { "NUL" } else { "/dev/null" };
    let args = ["logits", "--backend", "cpu", "--tokens", "1", "--out", nothing];
    let (code, _, stderr) = run(&args, &fixture());
    assert_eq!(code, Some(0), "{stderr}");
}
