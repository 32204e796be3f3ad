//! The models in the cache: fetched, listed, removed, with their licences.

mod cli_support;

use cli_support::{Handmill, gguf, server::*, tiny_gguf, tiny_safetensors};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

impl Setup {
    fn run(&self, args: &[&str]) -> cli_support::Answer {
        self.handmill().run(args)
    }

    /// Names, and whether each is whole.
    fn list(&self) -> Vec<(String, bool)> {
        let value = self.run(&["list", "--json"]).json();
        let name = |model: &Value| (model["name"].as_str().unwrap().to_owned(), model["whole"].as_bool().unwrap());
        value["models"].as_array().unwrap().iter().map(name).collect()
    }

    /// All files below the cache, without locks.
    fn files(&self) -> Vec<String> {
        fn below(dir: &Path, all: &mut Vec<String>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { below(&path, all) } else { all.push(path.display().to_string()) }
            }
        }
        let mut all = Vec::new();
        below(self.cache.path(), &mut all);
        all.retain(|path| !path.ends_with(".lock"));
        all
    }
}

fn two_ggufs() -> Vec<RepoFile> {
    vec![RepoFile::lfs("a-Q4_K_M.gguf", tiny_gguf(10)), RepoFile::lfs("b-Q8_0.gguf", tiny_gguf(20))]
}

#[test]
fn pull_fetches_and_names_the_licence() {
    let setup = Setup::new(two_ggufs());
    let value = setup.run(&["pull", "hf:own/name:Q8_0", "--json"]).json();
    assert_eq!(value["path"], setup.commit().join("b-Q8_0.gguf").to_str().unwrap());
    assert_eq!(
        (value["licence"]["name"].as_str(), &value["licence"]["restricts"]),
        (Some("Apache License 2.0"), &Value::Null)
    );
    let requests = setup.server.requests();
    let again = setup.run(&["pull", "-q", "hf.co/own/name:Q8_0"]);
    again.assert_ok();
    assert!(again.stdout.contains("licence  Apache License 2.0, https://"), "{}", again.stdout);
    assert_eq!((setup.server.requests(), &again.stderr[..]), (requests, ""));
    // Of several files the usual kind is taken, where there is one.
    let usual = setup.run(&["pull", "hf:own/name"]);
    usual.assert_ok();
    assert!(usual.stdout.contains("a-Q4_K_M.gguf") && usual.stderr.contains("taking a-Q4_K_M.gguf"), "{usual:?}");
}

#[test]
fn a_list_has_names_sizes_licences_and_times() {
    let setup = Setup::new(two_ggufs());
    let empty = setup.run(&["ls"]);
    empty.assert_ok();
    assert!(empty.stdout.starts_with("no models in "), "{}", empty.stdout);
    setup.run(&["pull", "hf:own/name:Q8_0"]).assert_ok();
    let value = setup.run(&["ls", "--json"]).json();
    let model = &value["models"][0];
    assert_eq!(model["name"], "hf:own/name:b-Q8_0.gguf");
    assert_eq!((&model["bytes"], &value["bytes"]), (&tiny_gguf(20).len().into(), &tiny_gguf(20).len().into()));
    assert_eq!((&model["licence"]["name"], &model["whole"]), (&"Apache License 2.0".into(), &true.into()));
    // A use, and only a use, is noted.
    let note = setup.commit().join(".complete-Q8_0.json");
    let long_ago = SystemTime::now() - Duration::from_secs(86_400 * 3 + 60);
    fs::File::options().write(true).open(&note).unwrap().set_modified(long_ago).unwrap();
    let text = setup.run(&["list"]).stdout;
    assert!(text.contains("hf:own/name:b-Q8_0.gguf") && text.contains("3 days ago"), "{text}");
    setup.run(&["inspect", "hf:own/name:Q8_0"]).assert_ok();
    assert!(setup.run(&["list"]).stdout.contains("just now"));
}

#[test]
fn what_is_removed_is_named_and_the_rest_stays() {
    let setup = Setup::new(two_ggufs());
    for kind in ["Q8_0", "Q4_K_M"] {
        setup.run(&["pull", &format!("hf:own/name:{kind}")]).assert_ok();
    }
    let removed = setup.run(&["rm", "hf:own/name:Q8_0", "--json"]).json();
    assert_eq!(removed["removed"][0]["name"], "hf:own/name:b-Q8_0.gguf");
    assert_eq!(removed["bytes"], tiny_gguf(20).len());
    assert_eq!(setup.list(), [("hf:own/name:a-Q4_K_M.gguf".to_owned(), true)]);
    // It is fetched anew.
    setup.run(&["pull", "hf:own/name:b-Q8_0.gguf"]).assert_ok();
    let all = setup.run(&["rm", "hf:own/name"]);
    all.assert_ok();
    assert_eq!(all.stdout.lines().filter(|line| line.starts_with("removed hf:own/name:")).count(), 2, "{}", all.stdout);
    assert_eq!((setup.list(), setup.files()), (Vec::new(), Vec::new()));
}

#[test]
fn a_folder_is_one_model() {
    let setup = Setup::new(vec![
        RepoFile::small("config.json", br#"{"model_type": "unheard-of"}"#.to_vec()),
        RepoFile::small("README.md", b"---\nlicense: llama3.2\n---\n".to_vec()),
        RepoFile::lfs("model.safetensors", tiny_safetensors("a")),
    ]);
    let pulled = setup.run(&["pull", "hf:own/name", "--json"]).json();
    assert_eq!(pulled["licence"]["name"], "Llama 3.2 Community License");
    assert!(pulled["licence"]["restricts"].as_str().unwrap().contains("700 million"), "{pulled}");
    let shown = setup.run(&["inspect", "hf:own/name"]).stdout;
    assert!(shown.contains("Llama 3.2 Community License, https://www.llama.com/llama3_2/license/ ("), "{shown}");
    assert_eq!(setup.list(), [("hf:own/name".to_owned(), true)]);
    setup.run(&["rm", "hf:own/name"]).assert_ok();
    assert_eq!(setup.files(), Vec::<String>::new());
}

#[test]
fn nothing_outside_the_cache_is_removed() {
    let setup = Setup::new(two_ggufs());
    setup.run(&["pull", "hf:own/name:Q8_0"]).assert_ok();
    let elsewhere = tempfile::tempdir().unwrap();
    let mine = elsewhere.path().join("mine.gguf");
    fs::write(&mine, tiny_gguf(10)).unwrap();
    let before = setup.files();
    let up =
        format!("{}/../{}/mine.gguf", setup.cache.path().display(), elsewhere.path().file_name().unwrap().display());
    for (name, why) in [
        (mine.to_str().unwrap(), "does not lie in the cache"),
        (&up[..], "does not lie in the cache"),
        (setup.cache.path().to_str().unwrap(), "does not lie in the cache"),
        ("/", "does not lie in the cache"),
        ("hf:own/other", "is not in the cache"),
        ("hf:../..", "is not in the cache"),
        ("hf:own/name:../x", "is not in the cache"),
        ("smollm2", "is not in the cache"),
        ("", "is not in the cache"),
    ] {
        setup.run(&["rm", name]).assert_failed(1, why);
        // One wrong name, and nothing is removed.
        setup.run(&["rm", "hf:own/name", name]).assert_failed(1, why);
    }
    assert!(mine.exists());
    assert_eq!(setup.files(), before);
    // A path in the cache is one of the models' names.
    let inside = setup.commit().join("b-Q8_0.gguf");
    setup.run(&["rm", inside.to_str().unwrap()]).assert_ok();
    assert_eq!(setup.files(), Vec::<String>::new());
}

#[cfg(unix)]
#[test]
fn links_out_of_the_cache_are_not_followed() {
    let setup = Setup::new(two_ggufs());
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("mine.gguf"), tiny_gguf(10)).unwrap();
    setup.run(&["pull", "hf:own/name:Q8_0"]).assert_ok();
    std::os::unix::fs::symlink(elsewhere.path(), setup.commit().join("linked")).unwrap();
    fs::create_dir_all(setup.cache.path().join("hf/own")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), setup.cache.path().join("hf/own/linked")).unwrap();
    assert!(setup.list().iter().all(|(name, _)| name.starts_with("hf:own/name")));
    setup.run(&["rm", "hf:own/name"]).assert_ok();
    assert!(elsewhere.path().join("mine.gguf").exists());
    assert!(!setup.commit().exists());
}

#[test]
fn a_fetch_that_was_broken_off_is_listed_and_removed() {
    let mut files = vec![RepoFile::lfs("tiny.gguf", tiny_gguf(300_000))];
    files[0].faults = vec![Fault::CutAfter(120_000), Fault::Status(404)];
    let setup = Setup::new(files);
    setup.run(&["pull", "hf:own/name:tiny.gguf"]).assert_failed(1, "404");
    assert_eq!(setup.list(), [("hf:own/name".to_owned(), false)]);
    assert!(setup.run(&["list"]).stdout.contains("not whole"));
    let removed = setup.run(&["rm", "hf:own/name"]);
    removed.assert_ok();
    assert!(removed.stdout.contains("what had arrived: 120 kB"), "{}", removed.stdout);
    assert_eq!(setup.files(), Vec::<String>::new());
}

#[test]
fn a_model_under_way_is_not_removed() {
    let mut files = vec![RepoFile::lfs("tiny.gguf", tiny_gguf(300_000))];
    files[0].faults = vec![Fault::SlowlyFor(Duration::from_millis(1500))];
    let setup = Setup::new(files);
    let fetch = setup.handmill().start(&["pull", "hf:own/name:tiny.gguf"]);
    cli_support::wait_for(|| setup.commit().join("tiny.gguf.part").exists());
    setup.run(&["rm", "hf:own/name"]).assert_failed(1, "another process is fetching");
    fetch.wait().assert_ok();
    assert_eq!(setup.list(), [("hf:own/name:tiny.gguf".to_owned(), true)]);
}

#[test]
fn licences_are_named_with_what_they_restrict() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let shown = |texts: &[(&str, &[u8])]| {
        fs::write(&path, gguf(&[&[("general.architecture", &b"unheard-of"[..])], texts].concat())).unwrap();
        let answer = Handmill::new().run(&["inspect", path.to_str().unwrap()]);
        answer.assert_ok();
        answer.stdout.lines().find(|line| line.starts_with("licence")).unwrap().to_owned()
    };
    for (texts, line) in [
        (
            &[("general.license", &b"gemma"[..])][..],
            "Gemma Terms of Use, https://ai.google.dev/gemma/terms (a prohibited-use",
        ),
        (
            &[("general.license", b"other"), ("general.license.name", b"qwen-research")],
            "Qwen Research License, https://",
        ),
        (&[("general.license", b"apache-2.0")], "Apache License 2.0, https://www.apache.org/licenses/LICENSE-2.0"),
        (&[("general.license", b"my\x1b[31m-own")], "my\\u{1b}[31m-own (not known here; read it"),
        (&[], "not stated; what the model allows is unknown"),
    ] {
        let licence = shown(texts);
        assert!(licence.contains(line), "{licence}");
    }
}
